"""What the commands share: they call the functions of the API's routes, as an operator. What a route refuses is an exit code."""

import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import typer
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError, validate_call
from sqlalchemy.exc import SQLAlchemyError

from app.api.task_access import TaskViewer
from app.cli import console
from app.cli.console import ExitCode
from app.core.celery import celery_app
from app.features.tasks.platform.problems import PROBLEMS, problem_of

T = TypeVar("T")

Route = Callable[..., Coroutine[Any, Any, T]]
"""The function of a route."""

OPERATOR = TaskViewer(None)
"""Who calls the functions of the routes: whoever can run a command is an operator."""

# As in the API: a task runs again only if this release has it.
celery_app.loader.import_default_modules()

_CODES = {
    400: ExitCode.USAGE,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    422: ExitCode.USAGE,
    429: ExitCode.CONFLICT,
    503: ExitCode.UNAVAILABLE,
}


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that uses the queue, and return its result; exit with the code for its error."""
    try:
        return console.run(main, SQLAlchemyError, OSError)
    except (*PROBLEMS, ValidationError) as error:
        reason, code = _refusal(error)
        console.fail(reason, code)


def call(route: Route[T], *arguments: Any) -> T:
    """Call the function of a route and return its answer; exit with the code for its error."""
    return run(_call(route, *arguments))


def call_each(
    ids: Sequence[str], route: Route[Any], *arguments: Any, as_json: bool, done: Callable[[Any], str]
) -> None:
    """Call the function of a route for each id, and print what became of it; `done` returns that of an answer as text.

    Exit with the code of the first refusal. If Redis does not answer, what is left is not called.
    """
    if len(set(ids)) < len(ids):
        console.fail("an id is given twice", ExitCode.USAGE)
    outcomes: list[dict[str, Any]] = []
    rows: list[tuple[str, str]] = []
    codes: list[ExitCode] = []

    async def call_all() -> None:
        for one in ids:
            try:
                answer = await _call(route, one, *arguments)
            except (*PROBLEMS, ValidationError) as error:
                reason, code = _refusal(error)
                if code == ExitCode.UNAVAILABLE:
                    raise
                codes.append(code)
                outcomes.append({"id": one, "outcome": "refused", "reason": reason})
                rows.append((one, reason))
            else:
                outcomes.append({"id": one, "outcome": "done", **(answer.model_dump(mode="json") if answer else {})})
                rows.append((one, done(answer)))

    try:
        run(call_all())
    finally:
        if as_json:
            console.print_json(outcomes)
        elif rows:
            console.print_table(["id", "outcome"], rows)
    if codes:
        raise typer.Exit(codes[0])


async def _call(route: Route[T], *arguments: Any) -> T:
    """Call the function of a route with arguments that are validated as those of a request."""
    bound = inspect.signature(route).bind(*arguments).arguments
    return await validate_call(config={"arbitrary_types_allowed": True})(route)(**bound)


def _refusal(error: Exception) -> tuple[str, ExitCode]:
    """Return the reason of a refusal, as text, and the exit code for it."""
    if isinstance(error, ValidationError):
        error = RequestValidationError(error.errors())
    problem = problem_of(error)
    reasons = [f"{one['loc'][-1]}: {one['msg']}" for one in problem.errors]
    return "; ".join(reasons) or problem.detail, _CODES.get(problem.status_code, ExitCode.FAILED)
