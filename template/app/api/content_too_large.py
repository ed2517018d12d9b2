"""413 Content Too Large: one form for every request body that is larger than the `max_body_size` of its route."""

import sys

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY, RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def refuse_larger_body(request: Request) -> None:
    """Answer 413 before the route runs where the request's Content-Length is too large.

    Without this dependency of the application, a route that does not read its body would do its work first.
    """
    if content_length(request.scope) > request.scope.get(MAX_BODY_SIZE_SCOPE_KEY, sys.maxsize):
        raise HTTPException(413)


class ContentTooLarge:
    """ASGI middleware that answers in JSON what FastAPI's `max_body_size` refuses.

    FastAPI answers in plain text where there is a Content-Length, in JSON where there is none, and not at all where the route
    catches the error. Here, CORS headers and metrics cover the answer too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 413 in place of the route where its body was refused."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = started = False

        async def watched_receive() -> Message:
            nonlocal refused
            try:
                return await receive()
            # A group where a middleware further out, such as one of `@app.middleware("http")`, passes it on.
            except (HTTPException, ExceptionGroup):
                refused = True
                raise

        async def replacing_send(message: Message) -> None:
            nonlocal refused, started
            refused = refused or content_length(scope) > scope.get(MAX_BODY_SIZE_SCOPE_KEY, sys.maxsize)
            # Otherwise 413 is sent below, in place of this.
            if started or not refused:
                started = True
                await send(message)

        try:
            await self.app(scope, watched_receive, replacing_send)
        # Whatever the application made of the refusal, such as an ExceptionGroup.
        except Exception:
            if started or not refused:
                raise
        if refused and not started:
            detail = f"The request body is larger than {scope[MAX_BODY_SIZE_SCOPE_KEY]} bytes."
            answer = JSONResponse({"detail": detail}, status_code=413)
            # Without a limit of its own, FastAPI would replace this answer too.
            await RequestBodyLimitMiddleware(answer, max_body_size=sys.maxsize)(scope, receive, send)


def content_length(scope: Scope) -> int:
    """Return the Content-Length that a request announces, 0 where it has none."""
    value = dict(scope["headers"]).get(b"content-length", b"")
    return int(value) if value.isdigit() else 0
