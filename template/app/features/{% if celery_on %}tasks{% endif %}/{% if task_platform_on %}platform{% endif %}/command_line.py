"""What the commands share: they call the functions of the API, as an operator, and exit with 4 if Redis does not answer."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

# Celery's default application would use another Redis.
import app.core.celery  # noqa: F401
from app.api.task_access import TaskViewer
from app.cli import console
from app.cli.console import ExitCode
from app.worker.broker import QueueUnavailable

T = TypeVar("T")

OPERATOR = TaskViewer(None)
"""Who calls the functions of the routes: whoever can run a command is an operator."""

_CODES = {
    400: ExitCode.USAGE,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    422: ExitCode.USAGE,
    429: ExitCode.CONFLICT,
    503: ExitCode.UNAVAILABLE,
}


def run(main: Coroutine[Any, Any, T], *outages: type[Exception]) -> T:
    """Run a coroutine that uses the queue, and return its result; exit if Redis is unreachable, or with one of `outages`."""
    return console.run(main, QueueUnavailable, *outages)


def call(answer: Coroutine[Any, Any, T]) -> T:
    """Await the function of a route, and return its answer; exit with the code for the status of its error."""
    try:
        return run(answer)
    except HTTPException as error:
        console.fail(str(error.detail), _CODES.get(error.status_code, ExitCode.FAILED))
    except (RequestValidationError, ValidationError) as error:
        console.fail("; ".join(str(one["msg"]) for one in error.errors()), ExitCode.USAGE)
