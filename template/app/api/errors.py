"""Answers to requests that are not understood, or too many."""

import json
from typing import cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse


class AsciiResponse(JSONResponse):
    """JSON that holds any text: a lone surrogate, which JSON can express, has no UTF-8."""

    def render(self, content: object) -> bytes:
        """Return the content with everything but ASCII escaped."""
        return json.dumps(content).encode("ascii")


async def invalid_request(_: Request, error: Exception) -> JSONResponse:
    """Answer 422 with what is wrong and where, but without what was sent: it may be a password."""
    problems = cast(RequestValidationError, error).errors()
    detail = [{key: problem[key] for key in ("type", "loc", "msg")} for problem in problems]
    return AsciiResponse({"detail": detail}, status_code=422)


def invalid(where: tuple[str, ...], message: str) -> RequestValidationError:
    """Return an error that is answered as FastAPI's own are: `raise invalid(("body", "month"), "has not begun")`."""
    return RequestValidationError([{"type": "value_error", "loc": where, "msg": message}])


async def threads_busy(_: Request, __: Exception) -> JSONResponse:
    """Answer 503 where a request waited for a thread in vain (`app.core.threads.ThreadsBusy`)."""
    detail = "Too many requests at once; try again later."
    return JSONResponse({"detail": detail}, status_code=503, headers={"Retry-After": "5"})
