"""The record of each task: what it is, and what has happened to it, for `CELERY_RECORDS_EXPIRE` seconds.

It is written in the call that stores the task's state, next to it in the result store (`record_scripts`), and read by
`app.worker.history`. A record begins when its task is published, or when a worker has the task and finds none: what another
program queued. A final state never changes, unless another task is queued under the id of one whose result has expired.

A task that ignores its result has a record too. Its state stays UNTRACKED until it fails or is revoked: a round trip at its start
and one at its end would cost more than running it.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from celery import current_app, states
from celery.result import ResultSet
from celery.signals import before_task_publish
from redis.exceptions import NoScriptError, RedisError

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker.broker import result_key, results_client
from app.worker.messages import collect_record
from app.worker.owners import HEADER, owner_key
from app.worker.pipeline import Command, Commands, execute, failures
from app.worker.record_scripts import FORGET, PUBLISH, SUFFIX
from app.worker.status import UNTRACKED, error_text

REPLAY_HEADER = "replay_of"
"""The header with the id of the task that a message runs again."""

MAX_ARGUMENTS = 64
"""Characters of the positional arguments in a record, and of the others."""

MAX_ERROR = 200
"""Characters of an error's message."""

MAX_PROGRESS = 500
"""Characters of a task's progress as JSON; a larger one is in its result only."""

_MAX_FIELD = 255
_logger = structlog.get_logger("app.worker")


def connect() -> None:
    """Record each task when it is published."""
    before_task_publish.connect(_record_published, weak=False)


def record_steps(result: Any, owner: str | None = None) -> None:
    """Store PENDING for the steps of a chain or chord that a worker publishes later, given the result of the last one."""
    _record(step_ids(result), owner)


def record_pending(task_ids: Iterable[str], owner: str | None = None) -> None:
    """Store PENDING for tasks that are queued later, under ids that are known now; their records begin then."""
    _record(set(task_ids), owner)


def commands(headers: Mapping[str, Any], queue: object) -> list[Command]:
    """Return the commands that record a task, given the headers of its message and its queue."""
    untracked = bool(headers.get("ignore_result"))
    return [_command(headers["id"], headers.get(HEADER), describe(headers, queue), untracked=untracked)]


async def check(commands: Sequence[Command], replies: Sequence[Any], task_ids: Iterable[str]) -> list[str]:
    """Run the commands again whose scripts Redis did not know, log what it refused, and return the ids that are `new`."""
    pairs = zip(commands, replies, strict=True)
    unknown = [_known_by_text(command) for command, reply in pairs if isinstance(reply, NoScriptError)]
    if unknown:
        again = await execute(Commands(before=unknown))
        replies = [*(reply for reply in replies if not isinstance(reply, NoScriptError)), *again.before]
    error = next(failures(replies), None)
    if error is not None:
        warn_not_recorded(task_ids, error)
    return new(replies)


def new(replies: Iterable[Any]) -> list[str]:
    """Return the ids of the tasks of which nothing was stored before, given the replies to `commands`."""
    return [reply.decode() for reply in replies if isinstance(reply, bytes)]


def step_ids(result: Any) -> set[str]:
    """Return the task ids of a workflow, given the result of its last step."""
    found = set()
    while result is not None:
        if isinstance(result, ResultSet):
            found |= {task_id for member in result.results for task_id in step_ids(member)}
        else:
            found.add(result.id)
        result = result.parent
    return found


def describe(headers: Mapping[str, Any], queue: object) -> str:
    """Return what a record has of a message, in the order of `record_scripts.DESCRIPTION`."""
    task_id, root = headers.get("id"), headers.get("root_id")
    return "\n".join(
        (
            _line(headers.get("task")),
            _line(queue),
            _line(headers.get(HEADER)),
            _line(headers.get("argsrepr"), MAX_ARGUMENTS),
            _line(headers.get("kwargsrepr"), MAX_ARGUMENTS),
            _line(headers.get("parent_id")),
            _line(root) if root != task_id else "",
            _line(headers.get("group")),
            _line(headers.get(REPLAY_HEADER)),
            _line(headers.get("eta")),
        )
    )


def state_arguments(
    task_id: str, state: str, request: Any, error: BaseException | None, progress: Any, next_retry: float
) -> list[Any]:
    """Return what the scripts that store a state write into the record: from ARGV[6] on."""
    description, worker, told = "", "", ""
    attempt: int | str = ""
    if request is not None:
        headers = request.__dict__
        description = describe(headers, (headers.get("delivery_info") or {}).get("routing_key"))
        if headers.get("hostname"):
            attempt, worker = (headers.get("retries") or 0) + 1, _line(headers["hostname"])
    if error is not None:
        told = json.dumps({"type": type(error).__name__, "message": error_text(error)[:MAX_ERROR]})
    elif progress is not None:
        told = _progress(state, progress)
    return [*_arguments(task_id), state, description, attempt, worker, told, next_retry]


def record_key(task_id: str) -> bytes:
    """Return the key of a task's record."""
    return result_key(task_id) + SUFFIX


def forget(task_ids: Iterable[str]) -> list[Command]:
    """Return the commands that delete what is stored of tasks that are `new` and could not be queued."""
    return [
        # With its text: it is used so rarely that Redis does not know it.
        FORGET.with_text(FORGET.command(_keys(task_id), ["", "", "", "", "", *_arguments(task_id)]))
        for task_id in task_ids
    ]


def warn_not_recorded(task_ids: Iterable[str], error: Exception) -> None:
    """Log that tasks have no record. They can still be queued, as the broker may be another server."""
    _logger.warning("tasks_not_recorded", task_ids=sorted(task_ids)[:10], error=error_repr(error))


def _known_by_text(command: Command) -> Command:
    return PUBLISH.with_text(command)


def _record_published(headers: dict[str, Any], routing_key: object, **_: object) -> None:
    recording = commands(headers, routing_key)
    if not collect_record(recording):
        _run({headers["id"]}, recording)


def _record(task_ids: set[str], owner: str | None) -> None:
    _run(task_ids, [_command(task_id, owner, "") for task_id in task_ids])


def _command(task_id: str, owner: str | None, description: str, *, untracked: bool = False) -> Command:
    backend: Any = current_app.backend
    state = UNTRACKED if untracked else states.PENDING
    result = f"{_result_without_id(state)}{json.dumps(task_id)}}}"
    args = [result, backend.expires, owner or "", "", "", *_arguments(task_id), state, description]
    return PUBLISH.command(_keys(task_id), args)


def _keys(task_id: str) -> list[bytes]:
    return [result_key(task_id), owner_key(task_id), record_key(task_id)]


def _arguments(task_id: str) -> list[Any]:
    return [_results_prefix(), task_id, celery_settings.records_expire, celery_settings.records_max]


@functools.cache
def _results_prefix() -> bytes:
    return result_key("/")[:-1]


def _line(value: object, length: int = _MAX_FIELD) -> str:
    if value is None:
        return ""
    text = str(value)
    if len(text) > length:
        text = text[: length - 1] + "…"
    return text.replace("\n", " ") if "\n" in text else text


def _progress(state: str, progress: Any) -> str:
    try:
        text = json.dumps({"state": state, "value": progress}, default=str)
    except (TypeError, ValueError, RecursionError):
        return ""
    return text if len(text) <= MAX_PROGRESS else ""


@functools.cache
def _result_without_id(status: str) -> str:
    """Return the stored state of a task up to its id: encoded once for all tasks, as each publishing waits for it."""
    backend: Any = current_app.backend
    stored: dict[str, Any] = {"status": status, "result": None, "traceback": None, "children": [], "task_id": ""}
    return str(backend.encode(stored)).removesuffix('""}')


def _run(task_ids: set[str], commands: list[Command]) -> None:
    try:
        replies = _replies(commands)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            replies = _replies([_known_by_text(command) for command in commands])
    except RedisError as error:
        replies = [error]
    for reply in replies:
        if isinstance(reply, Exception):
            warn_not_recorded(task_ids, reply)
            return


def _replies(commands: list[Command]) -> list[Any]:
    with results_client().pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return list(pipe.execute(raise_on_error=False))
