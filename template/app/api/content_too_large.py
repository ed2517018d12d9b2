"""Return 413 as JSON for every request body that exceeds the `max_body_size` of its route."""

import sys

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY, RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def reject_larger_body(request: Request) -> None:
    """Return 413 before the route runs if the request's Content-Length exceeds the limit.

    A route that never reads its body would otherwise run first.
    """
    if content_length(request.scope) > request.scope.get(MAX_BODY_SIZE_SCOPE_KEY, sys.maxsize):
        raise HTTPException(413)


class ContentTooLarge:
    """ASGI middleware that returns a JSON response for requests that FastAPI's `max_body_size` rejects.

    FastAPI returns plain text if the request has a Content-Length, JSON if it has none, and no response if the route
    catches the error. A response from here also gets CORS headers and is counted in the metrics.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request; return 413 instead of the route's response if the body was rejected."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        rejected = started = False

        async def watched_receive() -> Message:
            nonlocal rejected
            try:
                return await receive()
            # An outer middleware, such as one added with `@app.middleware("http")`, raises it as an ExceptionGroup.
            except (HTTPException, ExceptionGroup):
                rejected = True
                raise

        async def replacing_send(message: Message) -> None:
            nonlocal rejected, started
            rejected = rejected or content_length(scope) > scope.get(MAX_BODY_SIZE_SCOPE_KEY, sys.maxsize)
            # A rejected request gets the 413 below instead of this response.
            if started or not rejected:
                started = True
                await send(message)

        try:
            await self.app(scope, watched_receive, replacing_send)
        # The application may wrap the rejection in another exception, such as an ExceptionGroup.
        except Exception:
            if started or not rejected:
                raise
        if rejected and not started:
            detail = f"The request body is larger than {scope[MAX_BODY_SIZE_SCOPE_KEY]} bytes."
            response = JSONResponse({"detail": detail}, status_code=413)
            # FastAPI would replace this response too if it had no limit of its own.
            await RequestBodyLimitMiddleware(response, max_body_size=sys.maxsize)(scope, receive, send)


def content_length(scope: Scope) -> int:
    """Return the request's Content-Length, or 0 if the header is missing or invalid."""
    value = dict(scope["headers"]).get(b"content-length", b"")
    return int(value) if value.isdigit() else 0
