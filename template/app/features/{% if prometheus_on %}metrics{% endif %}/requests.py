"""Counts and times requests, by the route's template: a path with an id in it would be a new time series for each id."""

import time

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.features.metrics.config import metrics_settings
from app.features.metrics.exposition import serving

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_requests = Counter("http_requests", "Requests answered.", ["method", "route", "status"])
_duration = Histogram("http_request_duration_seconds", "Time until the end of the answer.", ["method", "route"])


class RequestMetrics:
    """ASGI middleware that measures each request, and serves the metrics while the application runs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, noting its status."""
        if scope["type"] == "lifespan":
            with serving(metrics_settings.api_port):
                await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # What raises is answered 500 further out.
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        start = time.perf_counter()
        try:
            await self.app(scope, receive, noted)
        finally:
            method, route = _method(scope), _route(scope)
            _requests.labels(method, route, status).inc()
            _duration.labels(method, route).observe(time.perf_counter() - start)


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"


def _route(scope: Scope) -> str:
    """Return the template of the route that answered, `none` where no route did."""
    # FastAPI's own note of it has the prefixes of the routers; the route itself has not.
    chosen = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    path = getattr(chosen, "path_format", None)
    return path if isinstance(path, str) else "none"
