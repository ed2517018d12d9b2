"""Tasks: list and show their records, watch, send, cancel and retry them."""

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import (
    DryRun,
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
    from app.features.tasks.platform.bulk import BulkResult, BulkTask
    from app.features.tasks.platform.command_line import Route
    from app.features.tasks.platform.schemas import TaskError, TaskSummary
    from app.worker.history import TaskRecord

command = typer.Typer(help="List, show, watch, send, cancel and retry tasks.", no_args_is_help=True)

TaskId = Annotated[str, typer.Argument(metavar="ID", help="The id of a task.")]
TaskIds = Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of tasks.")]
State = Annotated[str | None, typer.Option(help="For example FAILURE or STARTED.")]
Name = Annotated[str | None, typer.Option(help="The name of the task.")]
Queue = Annotated[str | None, typer.Option(help="The name of the queue.")]
Owner = Annotated[str | None, typer.Option(help="For example user-7.")]
Since = Annotated[str | None, typer.Option(help="Queued since: 15m, 2h, 7d, or a time.")]
Until = Annotated[str | None, typer.Option(help="Queued until: 15m, 2h, 7d, or a time.")]

_COLUMNS = ("queued", "state", "task", "queue", "owner", "id")


@command.command("list")
def list_tasks(
    *,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    owner: Owner = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Continue after a page: its next cursor.")] = None,
    as_json: Json = False,
) -> None:
    """List tasks, the last queued first, as GET /tasks does for an operator."""
    from app.features.tasks.platform import listing
    from app.features.tasks.platform.command_line import OPERATOR, call

    query = _filter(state, name, queue, owner, since, until) | {"limit": limit, "cursor": cursor}
    page = call(listing.list_tasks, query, OPERATOR)
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    print_table(_COLUMNS, map(_row, page.tasks))
    if page.next_cursor:
        console().print(f"More: --cursor {page.next_cursor}")


@command.command()
def show(task_id: TaskId, *, as_json: Json = False) -> None:
    """Show a task with its attempts and the tasks that it has queued, as GET /tasks/ID does."""
    from app.features.tasks.platform import detail
    from app.features.tasks.platform.command_line import OPERATOR, call

    task = call(detail.get_task, task_id, OPERATOR)
    if as_json:
        print_json(task.model_dump(mode="json"))
        return
    print_fields(_fields(task))
    if task.attempts:
        print()
        rows = ((one.attempt, one.started_at, one.finished_at, _error(one.error)) for one in task.attempts)
        print_table(["attempt", "started", "finished", "error"], rows)
    if task.children:
        print()
        print_table(_COLUMNS, map(_row, task.children))


@command.command()
def watch(task_id: TaskId, *, as_json: Json = False) -> None:
    """Show the progress of a task until it ends; exits with 1 if it fails. With --json, a line for each change."""
    from app.features.tasks.platform import detail
    from app.features.tasks.platform.command_line import OPERATOR, call, run

    call(detail.get_task, task_id, OPERATOR)
    with _json_lines() if as_json else _progress_bar() as report:
        last = run(_watch(task_id, report))
    if last is None or last.state in {"PENDING", "STARTED", "RETRY"}:
        fail(f"the record of task {task_id} has expired.", ExitCode.NOT_FOUND)
    if last.state == "UNTRACKED":
        fail(f"task {task_id} ignores its result: its record has no end unless it fails.", ExitCode.CONFLICT)
    if last.state != "SUCCESS":
        reason = f": {last.error['type']}: {last.error['message']}" if last.error else ""
        fail(f"task {task_id} ended with {last.state}{reason}", ExitCode.FAILED)


@command.command()
def cancel(
    task_ids: TaskIds = None,
    *,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    owner: Owner = None,
    since: Since = None,
    until: Until = None,
    dry_run: DryRun = None,
    terminate: Annotated[
        bool, typer.Option("--terminate/--no-terminate", help="End those that run, as POST /tasks/ID/cancel does.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Cancel tasks, by their ids or all that match a filter; exits with 5 if one has ended, and with 3 if one is unknown."""
    from app.features.tasks.platform.actions import Cancelled, cancel_task
    from app.features.tasks.platform.bulk import cancel_tasks
    from app.features.tasks.platform.command_line import OPERATOR, call_each, selection

    def done(answer: Cancelled) -> str:
        return "cancelled" if answer.state == "REVOKED" else "runs until its worker has ended it"

    which = selection(task_ids, dry_run, **_filter(state, name, queue, owner, since, until))
    if which is None:
        call_each(task_ids or (), cancel_task, OPERATOR, terminate, as_json=as_json, done=done)
    else:
        request = {"filter": which, "dry_run": dry_run is not False, "terminate": terminate}
        _call_pages(cancel_tasks, request, as_json=as_json, done=lambda _: "cancelled")


@command.command()
def retry(
    task_ids: TaskIds = None,
    *,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    owner: Owner = None,
    since: Since = None,
    until: Until = None,
    dry_run: DryRun = None,
    as_json: Json = False,
) -> None:
    """Run failed or cancelled tasks again, as new tasks with the same arguments: by their ids, or all that match a filter.

    A filter selects those that failed, or with --state REVOKED those that were cancelled. Exits with 5 if one cannot run again.
    """
    from fastapi import Response

    from app.features.tasks.platform.actions import retry_task
    from app.features.tasks.platform.bulk import retry_tasks
    from app.features.tasks.platform.command_line import OPERATOR, call_each, selection

    which = selection(task_ids, dry_run, **_filter(state, name, queue, owner, since, until))
    if which is None:
        done = "retried as {0.task_id}".format
        call_each(task_ids or (), retry_task, OPERATOR, Response(), as_json=as_json, done=done)
    else:
        request = {"filter": which, "dry_run": dry_run is not False}
        _call_pages(retry_tasks, request, as_json=as_json, done="retried as {0.retried_as}".format)


def _filter(
    state: str | None, name: str | None, queue: str | None, owner: str | None, since: str | None, until: str | None
) -> dict[str, object]:
    return {
        "state": state.upper() if state else state,
        "name": name,
        "queue": queue,
        "owner": owner,
        "since": parse_time(since),
        "until": parse_time(until),
    }


def _call_pages(
    route: "Route[BulkResult]", request: dict[str, object], *, as_json: bool, done: "Callable[[BulkTask], str]"
) -> None:
    """Call the function of a route for all pages of what a filter selects."""
    from app.features.tasks.platform.command_line import OPERATOR, Outcomes, call

    with Outcomes(as_json=as_json) as outcomes:
        cursor = None
        while True:
            page = call(route, {**request, "cursor": cursor}, OPERATOR)
            for task in page.tasks:
                if task.outcome != "refused":
                    text = done(task) if task.outcome == "done" else f"{task.outcome} {task.name or ''}"
                    outcomes.add(task.task_id, task.outcome, text, name=task.name, retried_as=task.retried_as)
                else:
                    outcomes.refuse(task.task_id, task.reason or "refused")
            cursor = page.next_cursor
            if cursor is None:
                return


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

    task: Any = celery_app.tasks.get(name)
    if task is None:
        fail(f"no module in app/tasks/ registers the task {name}", ExitCode.NOT_FOUND)
    given = _json_of("--args", args, list), _json_of("--kwargs", kwargs, dict)
    _check_signature(task, *given)
    options = {"queue": queue, "countdown": countdown or None}
    signature = task.signature(*given, **{option: value for option, value in options.items() if value is not None})
    try:
        result: Any = run(publish.enqueue(signature, owner, idempotency_key=idempotency_key))
    except QueueNotFound as error:
        fail(error.args[0], ExitCode.USAGE)
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


async def _watch(task_id: str, report: "Callable[[TaskRecord], None]") -> "TaskRecord | None":
    from app.worker import watch

    last = None
    async for record in watch.watch(task_id):
        report(record)
        last = record
    return last


@contextmanager
def _json_lines() -> "Iterator[Callable[[TaskRecord], None]]":
    from app.features.tasks.platform.schemas import TaskSummary, summary

    yield lambda record: print(TaskSummary(**summary(record)).model_dump_json(), flush=True)


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
            done, total = _amount(record.progress)
            if record.state == "SUCCESS":
                done, total = total or 1, total or 1
            progress.update(bar, description=_progress_line(record), completed=done, total=total)

        yield report


def _progress_line(record: "TaskRecord") -> str:
    progress = _progress(record.progress) if record.state == "STARTED" else None
    return " ".join(part for part in (record.state, printable(record.name or ""), progress) if part)


def _progress(progress: Any) -> str | None:
    """Return what a task has reported: an amount with a message, or any other value as JSON."""
    value = progress.get("value") if isinstance(progress, dict) else None
    if value is None:
        return None
    done, total = _amount(progress)
    if total is None:
        return shown(value)
    message = value.get("message")
    return f"{done:g} of {total:g}" + (f" {shown(message)}" if message else "")


def _amount(progress: Any) -> tuple[float, float | None]:
    """Return how much of a task is done, and of how much; the whole is None if it is unknown."""
    value = progress.get("value") if isinstance(progress, dict) else None
    if not isinstance(value, dict):
        return 0, None
    done, total = value.get("done"), value.get("total")
    if not isinstance(done, int | float) or not isinstance(total, int | float) or total <= 0:
        return 0, None
    return min(done, total), total


def _row(task: "TaskSummary") -> tuple[object, ...]:
    return task.queued_at, task.state, task.name, task.queue, task.owner, task.task_id


def _fields(task: "TaskSummary") -> Iterable[tuple[str, object]]:
    yield "id", task.task_id
    yield "task", task.name
    yield "state", task.state
    yield "queue", task.queue
    yield "owner", task.owner
    yield "arguments", task.arguments
    yield "keyword arguments", task.keyword_arguments
    yield "queued", task.queued_at
    yield "eta", task.eta
    yield "started", task.started_at
    yield "finished", task.finished_at
    yield "next retry", task.next_retry_at
    yield "redeliveries", task.redeliveries or None
    yield "worker", task.worker
    yield "progress", _progress(task.progress)
    yield "error", _error(task.error)
    yield "parent", task.parent_id
    yield "root", task.root_id
    yield "group", task.group_id
    yield "replay of", task.replay_of


def _error(error: "TaskError | None") -> str | None:
    return f"{error.type}: {error.message}" if error else None
