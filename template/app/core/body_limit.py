"""A limit on the size of request bodies."""

from collections.abc import Mapping

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _TooLarge(Exception):
    pass


class BodyLimit:
    """ASGI middleware: answers 413 to a request whose body is larger than `max_bytes`, announced or not.

    `larger` has other limits by the path's beginning, for routes that do not keep the body in memory.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int] | None = None) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.larger = dict(larger or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what is read of its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        fitting = (limit for path, limit in self.larger.items() if scope["path"].startswith(path))
        max_bytes = next(fitting, self.max_bytes)
        received = 0
        started = False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        announced = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if announced.isdigit() and int(announced) > max_bytes:
                raise _TooLarge
            await self.app(scope, counted, noted)
        except _TooLarge:
            if started:
                raise
            detail = f"The request body is larger than {max_bytes} bytes."
            await JSONResponse({"detail": detail}, status_code=413)(scope, receive, send)
