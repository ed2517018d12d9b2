"""A record of each published task in the result store: Celery reports an unknown id as PENDING."""

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import structlog
from celery import current_app, states
from celery.result import ResultSet
from celery.signals import before_task_publish
from redis.exceptions import RedisError

from app.worker.broker import result_key, results_client
from app.worker.messages import collect_record
from app.worker.owners import HEADER, owner_key
from app.worker.pipeline import Command
from app.worker.status import UNTRACKED

_logger = structlog.get_logger("app.worker")


def connect() -> None:
    """Record each task when it is published."""
    before_task_publish.connect(_record_published, weak=False)


def record_steps(result: Any, owner: str | None = None) -> None:
    """Record the steps of a chain or chord that a worker publishes later, given the result of the last one."""
    _record(step_ids(result), owner)


def record_pending(task_ids: Iterable[str], owner: str | None = None) -> None:
    """Record tasks that are queued later, under ids that are known now."""
    _record(set(task_ids), owner)


def commands(headers: dict[str, Any]) -> list[Command]:
    """Return the commands that record a task, given the headers of its message."""
    return list(_commands(headers["id"], headers.get(HEADER), untracked=bool(headers.get("ignore_result"))))


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


def _record_published(headers: dict[str, Any], **_: object) -> None:
    recording = commands(headers)
    if not collect_record(recording):
        _run({headers["id"]}, recording)


def _record(task_ids: set[str], owner: str | None) -> None:
    _run(task_ids, [command for task_id in task_ids for command in _commands(task_id, owner)])


def _commands(task_id: str, owner: str | None, *, untracked: bool = False) -> Iterator[Command]:
    backend: Any = current_app.backend
    # First: without its owner a record would be nobody's.
    if owner:
        yield "SET", owner_key(task_id), owner, "EX", backend.expires
    record = f"{_record_without_id(UNTRACKED if untracked else states.PENDING)}{json.dumps(task_id)}}}"
    # A retry is published under the same id and must not overwrite its state.
    new_only = () if untracked else ("NX",)
    yield "SET", result_key(task_id), record, "EX", backend.expires, *new_only


@functools.cache
def _record_without_id(status: str) -> str:
    """Return the record of a task up to its id: encoded once for all tasks, as each publishing waits for it."""
    backend: Any = current_app.backend
    record: dict[str, Any] = {"status": status, "result": None, "traceback": None, "children": [], "task_id": ""}
    return str(backend.encode(record)).removesuffix('""}')


def _run(task_ids: set[str], commands: list[Command]) -> None:
    try:
        with results_client().pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            pipe.execute()
    except RedisError as error:
        warn_not_recorded(task_ids, error)


def warn_not_recorded(task_ids: Iterable[str], error: Exception) -> None:
    """Log that tasks have no record. They can still be queued, as the broker may be another server."""
    _logger.warning("tasks_not_recorded", task_ids=sorted(task_ids)[:10], error=repr(error))
