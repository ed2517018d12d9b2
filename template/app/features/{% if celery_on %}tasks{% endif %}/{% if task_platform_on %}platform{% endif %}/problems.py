"""Errors as problem details (RFC 9457): `APIRouter(route_class=ProblemRoute, responses=problem_responses(404))`."""

import math
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException

from app.api.errors import AsciiResponse
from app.worker.broker import QueueUnavailable
from app.worker.flow_control import NotQueued
from app.worker.idempotency import IdempotencyKeyReused
from app.worker.job_limit import TooManyJobs
from app.worker.rerun import RetryRefused
from app.worker.serializer import InvalidArguments

MEDIA_TYPE = "application/problem+json"

PROBLEMS = (
    RequestValidationError,
    # FastAPI raises Starlette's for a body that it cannot read.
    StarletteHTTPException,
    InvalidArguments,
    IdempotencyKeyReused,
    RetryRefused,
    NotQueued,
    TooManyJobs,
    QueueUnavailable,
)
"""The errors of a route that are the client's, a limit's or an outage's."""

_DESCRIPTIONS = {
    400: "The body is incomplete or does not match its Content-Type",
    401: "The access token is missing or invalid",
    403: "The client is not allowed to do this",
    404: "There is no such task, its record has expired, or it belongs to another user",
    409: "The state of the task, or an earlier request, does not allow this; `detail` has the reason",
    422: "A parameter is invalid; `errors` has each",
    429: "A limit does not allow more tasks; try again after the seconds in Retry-After",
    503: "Redis is unavailable; try again after the seconds in Retry-After",
}


class ProblemResponse(AsciiResponse):
    """A response with problem details. `type` is about:blank: the status says what the problem is."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        status: int,
        detail: str,
        errors: list[dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        content: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        }
        self.detail, self.errors = detail, errors or []
        super().__init__(content | ({"errors": errors} if errors else {}), status, headers)


class ProblemRoute(APIRoute):
    """A route whose errors are problem details."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler."""
        handle = super().get_route_handler()

        async def handle_with_problems(request: Request) -> Response:
            try:
                return await handle(request)
            except PROBLEMS as error:
                if isinstance(error, StarletteHTTPException) and error.status_code < HTTPStatus.BAD_REQUEST:
                    raise
                return problem_of(error)

        return handle_with_problems


def problem_of(error: Exception) -> ProblemResponse:
    """Return the response for an error of `PROBLEMS`."""
    if isinstance(error, RequestValidationError):
        # Without the input: it may be a secret.
        errors = [{key: one[key] for key in ("type", "loc", "msg")} for one in error.errors()]
        return ProblemResponse(422, "The request is invalid.", errors)
    if isinstance(error, StarletteHTTPException):
        return ProblemResponse(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, InvalidArguments):
        errors = [{"type": "invalid_arguments", "loc": ["body", "arguments"], "msg": str(error)}]
        return ProblemResponse(422, "The request is invalid.", errors)
    if isinstance(error, IdempotencyKeyReused | RetryRefused):
        return ProblemResponse(409, str(error))
    if isinstance(error, NotQueued | TooManyJobs):
        seconds = max(1, math.ceil(getattr(error, "retry_after", 30)))
        return ProblemResponse(429, str(error), headers={"Retry-After": str(seconds)})
    return ProblemResponse(503, str(error), headers={"Retry-After": "5"})


def unknown_task(task_id: str) -> HTTPException:
    """Return the error for a task that does not exist, and for one that the client may not see."""
    return HTTPException(404, f"You have no task {task_id}: it was never queued, or its record has expired.")


def problem_responses(*statuses: int, not_found: str | None = None) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI documents for these statuses; `not_found` is what a 404 says instead of that there is no such task."""
    descriptions = _DESCRIPTIONS | ({404: not_found} if not_found else {})
    return {status: _documented(status, descriptions[status]) for status in (*statuses, *([404] if not_found else []))}


def _documented(status: int, description: str) -> dict[str, Any]:
    title, text = HTTPStatus(status).phrase, {"type": "string"}
    properties: dict[str, Any] = {"type": text, "title": text, "status": {"type": "integer"}, "detail": text}
    if status == 422:
        location = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}
        error = {"type": "object", "properties": {"type": text, "loc": location, "msg": text}}
        properties["errors"] = {"type": "array", "items": error}
    schema = {"type": "object", "required": ["type", "title", "status", "detail"], "properties": properties}
    example = {"type": "about:blank", "title": title, "status": status, "detail": f"{description}."}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}
