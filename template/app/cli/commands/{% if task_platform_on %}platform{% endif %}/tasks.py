"""Tasks: list and show their records, watch, send and cancel them."""

import asyncio
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from app.cli.console import (
    ExitCode,
    Json,
    console,
    fail,
    parse_time,
    print_fields,
    print_json,
    print_table,
    printable,
    shown,
)

if TYPE_CHECKING:
    from app.worker.history import TaskRecord

command = typer.Typer(help="List, show, watch, send, cancel and retry tasks.", no_args_is_help=True)

TaskId = Annotated[str, typer.Argument(metavar="ID", help="The id of a task.")]

_POLL_INTERVAL = 0.5
_COLUMNS = ("queued", "state", "task", "queue", "owner", "id")


@command.command("list")
def list_tasks(
    *,
    state: Annotated[str | None, typer.Option(help="For example FAILURE or STARTED.")] = None,
    name: Annotated[str | None, typer.Option(help="The name of the task.")] = None,
    queue: Annotated[str | None, typer.Option()] = None,
    owner: Annotated[str | None, typer.Option(help="For example user-7.")] = None,
    since: Annotated[str | None, typer.Option(help="Queued since: 15m, 2h, 7d, or a time.")] = None,
    until: Annotated[str | None, typer.Option(help="Queued until: 15m, 2h, 7d, or a time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Continue after a page: its next cursor.")] = None,
    as_json: Json = False,
) -> None:
    """List tasks, the last queued first, as GET /tasks does for an operator."""
    from app.features.tasks.platform.command_line import run
    from app.worker import history
    from app.worker.broker import in_thread

    which = history.Filter(
        state=_known_state(state),
        name=name,
        queue=queue,
        owner=owner,
        since=parse_time(since),
        until=parse_time(until),
    )
    page = run(in_thread(history.page, which, _decoded(cursor), limit))
    following = _encoded(page.next)
    if as_json:
        print_json({"tasks": list(map(_summary, page.records)), "next_cursor": following})
        return
    print_table(_COLUMNS, map(_row, page.records))
    if following:
        console().print(f"More: --cursor {following}")


@command.command()
def show(task_id: TaskId, *, as_json: Json = False) -> None:
    """Show a task with its attempts and the tasks that it has queued, as GET /tasks/ID does."""
    from app.features.tasks.platform.command_line import run
    from app.worker import history
    from app.worker.broker import in_thread

    def read() -> "tuple[TaskRecord, list[TaskRecord]] | None":
        record = history.read(task_id)
        return (record, history.children(record)) if record else None

    found = run(in_thread(read))
    if found is None:
        _fail_unknown(task_id)
    record, children = found
    if as_json:
        from app.features.tasks.platform.schemas import detail

        print_json(detail(record, children).model_dump(mode="json"))
        return
    print_fields(_fields(record))
    if record.attempts:
        print()
        rows = ((one.number, one.started, one.finished, _error(one.error)) for one in record.attempts)
        print_table(["attempt", "started", "finished", "error"], rows)
    if children:
        print()
        print_table(_COLUMNS, map(_row, children))


@command.command()
def watch(task_id: TaskId, *, as_json: Json = False) -> None:
    """Show the progress of a task until it ends; exits with 1 if it fails. With --json, a line for each change."""
    from app.features.tasks.platform.command_line import run

    with _json_lines() if as_json else _progress_bar() as report:
        record = run(_watch(task_id, report))
    if record is None:
        _fail_unknown(task_id)
    if record.state != "SUCCESS":
        reason = f": {_error(record.error)}" if record.error else ""
        fail(f"task {task_id} ended with {record.state}{reason}", ExitCode.FAILED)


@command.command()
def cancel(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The ids of tasks.")],
    *,
    terminate: Annotated[
        bool, typer.Option("--terminate/--no-terminate", help="Stop a task that a prefork worker runs.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Cancel tasks that have not ended; exits with 5 if one has, and with 3 if one is unknown."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.features.tasks.platform.command_line import run
    from app.worker import publish
    from app.worker.status import TaskStatus

    async def cancel_all() -> list[TaskStatus | None]:
        return [await publish.cancel(task_id, terminate=terminate) for task_id in task_ids]

    states = [status.status if status else None for status in run(cancel_all(), SQLAlchemyError, OSError)]
    outcomes = list(zip(task_ids, states, map(_cancelled, states), strict=True))
    if as_json:
        print_json([{"task_id": task_id, "state": state, "outcome": text} for task_id, state, text in outcomes])
    else:
        print_table(["id", "state", "outcome"], outcomes)
    if None in states:
        raise typer.Exit(ExitCode.NOT_FOUND)
    if {"SUCCESS", "FAILURE"} & set(states):
        raise typer.Exit(ExitCode.CONFLICT)


@command.command()
def send(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the task.")],
    *,
    args: Annotated[str, typer.Option(help="The positional arguments as a JSON list.")] = "[]",
    kwargs: Annotated[str, typer.Option(help="The other arguments as a JSON object.")] = "{}",
    queue: Annotated[str | None, typer.Option(help="Instead of the task's own.")] = None,
    countdown: Annotated[float, typer.Option(min=0, max=86400, help="Seconds after which it may start.")] = 0,
    owner: Annotated[str | None, typer.Option(help="For example user-7, who then sees it.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Queue it only once in 24 hours with this key.")] = None,
    as_json: Json = False,
) -> None:
    """Queue a task and print its id; exits with 5 if a limit or a rule of the task refuses it."""
    from celery.exceptions import QueueNotFound

    from app.core.celery import celery_app
    from app.features.tasks.platform.command_line import run
    from app.worker import publish
    from app.worker.idempotency import IdempotencyKeyReused
    from app.worker.job_limit import TooManyJobs
    from app.worker.serializer import InvalidArguments

    celery_app.loader.import_default_modules()
    task: Any = celery_app.tasks.get(name)
    if task is None:
        fail(f"no module in app/tasks/ registers the task {name}", ExitCode.NOT_FOUND)
    given = _json_of("--args", args, list), _json_of("--kwargs", kwargs, dict)
    _check_signature(task, *given)
    options = {"queue": queue, "countdown": countdown or None}
    signature = task.signature(*given, **{option: value for option, value in options.items() if value is not None})
    try:
        result: Any = run(publish.enqueue(signature, owner, idempotency_key=idempotency_key))
    except (InvalidArguments, QueueNotFound) as error:
        fail(str(error), ExitCode.USAGE)
    except (publish.NotQueued, publish.QueueFull, TooManyJobs, IdempotencyKeyReused) as error:
        fail(str(error), ExitCode.CONFLICT)
    if as_json:
        print_json({"task_id": result.id, "task": name})
    else:
        print(result.id)


def _json_of(option: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise typer.BadParameter(f"{text!r} is not a JSON {'list' if kind is list else 'object'}.", param_hint=option)
    return value


def _check_signature(task: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    try:
        inspect.signature(task.run).bind(*args, **kwargs)
    except TypeError as error:
        raise typer.BadParameter(f"{task.name}: {error}.", param_hint="--args, --kwargs") from None


@command.command()
def retry(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The ids of tasks.")], *, as_json: Json = False
) -> None:
    """Run failed or cancelled tasks again, as new tasks with the same arguments; exits with 5 if one cannot run again."""
    from app.features.tasks.platform.command_line import run
    from app.worker import publish

    async def retry_one(task_id: str) -> tuple[str | None, str, ExitCode]:
        try:
            new = await publish.retry(task_id, limited=False)
        except (publish.RetryRefused, publish.NotQueued, publish.QueueFull) as error:
            return None, str(error), ExitCode.CONFLICT
        return (new.id, "retried", ExitCode.OK) if new else (None, "unknown", ExitCode.NOT_FOUND)

    outcomes = [(task_id, *run(retry_one(task_id))) for task_id in task_ids]
    if as_json:
        print_json([{"task_id": one, "retried_as": new, "outcome": text} for one, new, text, _ in outcomes])
    else:
        print_table(["id", "retried as", "outcome"], [outcome[:3] for outcome in outcomes])
    code = min((code for *_, code in outcomes if code), default=ExitCode.OK)
    if code:
        raise typer.Exit(code)


def _cancelled(state: str | None) -> str:
    if state is None:
        return "unknown"
    if state in {"SUCCESS", "FAILURE"}:
        return "has ended"
    return "cancelled" if state == "REVOKED" else "stops"


async def _watch(task_id: str, report: "Callable[[TaskRecord], None]") -> "TaskRecord | None":
    from app.worker import history
    from app.worker.broker import in_thread

    last = None
    while True:
        record = await in_thread(history.read, task_id)
        if record is None:
            return None
        if record != last:
            report(record)
            last = record
        # A task that ignores its result has an end only if it fails.
        if record.state not in {"PENDING", "STARTED", "RETRY"}:
            return record
        await asyncio.sleep(_POLL_INTERVAL)


@contextmanager
def _json_lines() -> "Iterator[Callable[[TaskRecord], None]]":
    yield lambda record: print(json.dumps(_summary(record)), flush=True)


@contextmanager
def _progress_bar() -> "Iterator[Callable[[TaskRecord], None]]":
    """Give a function that shows a task: as a bar in a terminal, as a line for each change elsewhere."""
    if not sys.stdout.isatty():
        yield lambda record: print(_progress_line(record), flush=True)
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    with Progress(text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console()) as progress:
        bar = progress.add_task("", total=None)

        def report(record: "TaskRecord") -> None:
            done, total = _amount(record)
            if record.state == "SUCCESS":
                done, total = total or 1, total or 1
            progress.update(bar, description=_progress_line(record), completed=done, total=total)

        yield report


def _progress_line(record: "TaskRecord") -> str:
    progress = _progress(record) if record.state == "STARTED" else None
    return " ".join(part for part in (record.state, printable(record.name or ""), progress) if part)


def _progress(record: "TaskRecord") -> str | None:
    """Return what a task has reported: an amount with a message, or any other value as JSON."""
    value = record.progress.get("value") if isinstance(record.progress, dict) else None
    if value is None:
        return None
    done, total = _amount(record)
    if total is None:
        return shown(value)
    message = value.get("message")
    return f"{done:g} of {total:g}" + (f" {shown(message)}" if message else "")


def _amount(record: "TaskRecord") -> tuple[float, float | None]:
    """Return how much of a task is done, and of how much; the whole is None if it is unknown."""
    value = record.progress.get("value") if isinstance(record.progress, dict) else None
    if not isinstance(value, dict):
        return 0, None
    done, total = value.get("done"), value.get("total")
    if not isinstance(done, int | float) or not isinstance(total, int | float) or total <= 0:
        return 0, None
    return min(done, total), total


def _known_state(state: str | None) -> str | None:
    from app.worker.history import STATES

    if state is None or state.upper() in STATES:
        return state.upper() if state else None
    raise typer.BadParameter(f"{state!r} is not a state; use one of {', '.join(STATES)}.")


def _decoded(cursor: str | None) -> Any:
    if cursor is None:
        return None
    from fastapi.exceptions import RequestValidationError

    from app.features.tasks.platform import cursors

    try:
        return cursors.decode(cursor)
    except RequestValidationError:
        raise typer.BadParameter(f"{cursor!r} is not the next cursor of a page.") from None


def _encoded(cursor: Any) -> str | None:
    if cursor is None:
        return None
    from app.features.tasks.platform import cursors

    return cursors.encode(cursor)


def _summary(record: "TaskRecord") -> dict[str, Any]:
    from app.features.tasks.platform.schemas import TaskSummary, summary

    return TaskSummary(**summary(record)).model_dump(mode="json")


def _row(record: "TaskRecord") -> tuple[object, ...]:
    return record.queued, record.state, record.name, record.queue, record.owner, record.task_id


def _fields(record: "TaskRecord") -> Iterable[tuple[str, object]]:
    yield "id", record.task_id
    yield "task", record.name
    yield "state", record.state
    yield "queue", record.queue
    yield "owner", record.owner
    yield "arguments", record.args
    yield "keyword arguments", record.kwargs
    yield "queued", record.queued
    yield "eta", record.eta
    yield "started", record.started
    yield "finished", record.finished
    yield "next retry", record.next_retry
    yield "redeliveries", record.redeliveries or None
    yield "worker", record.worker
    yield "progress", _progress(record)
    yield "error", _error(record.error)
    yield "parent", record.parent
    yield "root", record.root
    yield "group", record.group
    yield "replay of", record.replay_of


def _error(error: dict[str, str] | None) -> str | None:
    return f"{error.get('type')}: {error.get('message')}" if error else None


def _fail_unknown(task_id: str) -> NoReturn:
    fail(f"there is no task {task_id}: it was never queued, or its record has expired.", ExitCode.NOT_FOUND)
