"""What the commands share: they call the functions of the API's routes, as an operator. What a route refuses is an exit code."""

import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar

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


class Outcomes:
    """What has become of each of several tasks or dead letters: printed when the block ends, also if an error ends it.

    The block exits with the code of the first refusal.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._outcomes: dict[str, dict[str, Any]] = {}
        self._texts: dict[str, str] = {}
        self._codes: list[ExitCode] = []

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Print, and exit with the code of the first refusal."""
        if self._as_json:
            console.print_json(list(self._outcomes.values()))
        elif self._texts:
            console.print_table(["id", "outcome"], self._texts.items())
        if kind is None and self._codes:
            raise typer.Exit(self._codes[0])

    def add(self, one: str, outcome: str, text: str, **fields: object) -> None:
        """Note what has become of one; `fields` are for JSON."""
        self._outcomes[one] = {"id": one, "outcome": outcome, **fields}
        self._texts[one] = text

    def refuse(self, one: str, reason: str, code: ExitCode = ExitCode.CONFLICT) -> None:
        """Note that one was refused."""
        self.add(one, "refused", reason, reason=reason)
        self._codes.append(code)


def call_each(
    ids: Sequence[str], route: Route[Any], *arguments: Any, as_json: bool, done: Callable[[Any], str]
) -> None:
    """Call the function of a route for each id, and print what became of it; `done` returns that of an answer as text.

    If Redis does not answer, what is left is not called.
    """
    if len(set(ids)) < len(ids):
        console.fail("an id is given twice", ExitCode.USAGE)

    async def call_all(outcomes: Outcomes) -> None:
        for one in ids:
            try:
                answer = await _call(route, one, *arguments)
            except (*PROBLEMS, ValidationError) as error:
                reason, code = _refusal(error)
                if code == ExitCode.UNAVAILABLE:
                    raise
                outcomes.refuse(one, reason, code)
            else:
                outcomes.add(one, "done", done(answer), **(answer.model_dump(mode="json") if answer else {}))

    with Outcomes(as_json=as_json) as outcomes:
        run(call_all(outcomes))


def selection(ids: Sequence[str] | None, dry_run: bool | None, **fields: object) -> dict[str, object] | None:
    """Return the filter that the options of a command are, or None if it names ids; exit if it has both, or neither."""
    given = {name: value for name, value in fields.items() if value is not None}
    if bool(ids) == bool(given):
        console.fail(f"give ids or a filter: --{', --'.join(fields)}", ExitCode.USAGE)
    if ids and dry_run is not None:
        console.fail("--dry-run and --no-dry-run are for a filter", ExitCode.USAGE)
    if given and dry_run is not False:
        print("Dry run: nothing is changed without --no-dry-run.", file=sys.stderr)
    return given or None


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
