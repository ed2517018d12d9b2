"""Count and time requests by the route's path template. The real path would create a time series for each id."""

import time

from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.features.metrics.config import metrics_settings
from app.features.metrics.exposition import serving

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_requests = Counter("http_requests", "Requests by status of the response.", ["method", "route", "status"])
_duration = Histogram(
    "http_request_duration_seconds", "Time until the response ends or a stream begins.", ["method", "route"]
)


class RequestMetrics:
    """ASGI middleware that measures each request and serves the metrics while the application runs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request and measure it."""
        if scope["type"] == "lifespan":
            with serving(metrics_settings.api_port):
                await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # An outer middleware turns an exception into a 500.
        status = 500
        start = time.perf_counter()
        stream_began: float | None = None

        async def record_status(message: Message) -> None:
            nonlocal status, stream_began
            if message["type"] == "http.response.start":
                status = message["status"]
                # Its client decides how long it lasts.
                if Headers(raw=message.get("headers", [])).get("content-type", "").startswith("text/event-stream"):
                    stream_began = time.perf_counter()
            await send(message)

        try:
            await self.app(scope, receive, record_status)
        finally:
            method, route = _method(scope), _route(scope)
            _requests.labels(method, route, status).inc()
            _duration.labels(method, route).observe(
                (time.perf_counter() if stream_began is None else stream_began) - start
            )


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"


def _route(scope: Scope) -> str:
    """Return the path template of the route, or `none` if no route matched."""
    # FastAPI's context includes the prefixes of the routers; the route does not.
    chosen = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    path = getattr(chosen, "path_format", None)
    return path if isinstance(path, str) else "none"
