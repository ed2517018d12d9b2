"""Give each request an id, which its log lines have, the response, and the tasks that it queues."""

import re
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class RequestContext:
    """ASGI middleware that puts the id of the request, and its traceparent if it has one, into the log's context.

    A proxy in front may set the id with `X-Request-ID`; one that is too long or has other characters is replaced.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, and add the id to the response."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given, traceparent = headers.get(HEADER, ""), headers.get("traceparent", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        fields = {"request_id": request_id}
        if _TRACEPARENT.fullmatch(traceparent):
            fields["traceparent"] = traceparent

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(**fields):
            await self.app(scope, receive, send_with_id)
