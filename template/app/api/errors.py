"""Responses to invalid requests and to an overloaded thread pool."""

import json
from typing import cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse


class AsciiResponse(JSONResponse):
    """A JSON response in ASCII. JSON can contain a lone surrogate, which UTF-8 cannot encode."""

    def render(self, content: object) -> bytes:
        """Return the content as JSON with all non-ASCII characters escaped."""
        return json.dumps(content).encode("ascii")


async def invalid_request(_: Request, error: Exception) -> JSONResponse:
    """Return 422 with the type, location and message of each error, but without the input: it may be a password."""
    problems = cast(RequestValidationError, error).errors()
    detail = [{key: problem[key] for key in ("type", "loc", "msg")} for problem in problems]
    return AsciiResponse({"detail": detail}, status_code=422)


def invalid(where: tuple[str, ...], message: str) -> RequestValidationError:
    """Return a validation error that results in a 422: `raise invalid(("body", "month"), "has not begun")`."""
    return RequestValidationError([{"type": "value_error", "loc": where, "msg": message}])


async def threads_busy(_: Request, __: Exception) -> JSONResponse:
    """Return 503 for a request that got no thread in time (`app.core.threads.ThreadsBusy`)."""
    detail = "The server handles too many requests; try again later."
    return JSONResponse({"detail": detail}, status_code=503, headers={"Retry-After": "5"})
