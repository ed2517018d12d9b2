"""A record of each published task in the result store: Celery reports an unknown id as PENDING."""

from collections.abc import Iterable
from typing import Any

import structlog
from celery import current_app, states
from celery.result import ResultSet
from celery.signals import before_task_publish
from redis.exceptions import RedisError

from app.core.moved import moved_attributes
from app.worker.broker import result_key, results_client
from app.worker.owners import HEADER, owner_key
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
    _record({headers["id"]}, headers.get(HEADER), untracked=bool(headers.get("ignore_result")))


def _record(task_ids: set[str], owner: str | None, *, untracked: bool = False) -> None:
    backend: Any = current_app.backend
    expires = current_app.conf.result_expires
    status = UNTRACKED if untracked else states.PENDING
    meta: dict[str, Any] = {"status": status, "result": None, "traceback": None, "children": []}
    try:
        with results_client().pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                value = backend.encode({**meta, "task_id": task_id})
                # A retry is published under the same id and must not overwrite its state.
                new_only = not untracked
                # First: without its owner a record would be nobody's.
                if owner:
                    pipe.set(owner_key(task_id), owner, ex=expires)
                pipe.set(result_key(task_id), value, nx=new_only, ex=expires)
            pipe.execute()
    except RedisError as error:
        # The tasks can still be queued, as the broker may be another server.
        _logger.warning("tasks_not_recorded", task_ids=sorted(task_ids)[:10], error=repr(error))


__getattr__ = moved_attributes(
    __name__,
    {
        "TaskStatus": "app.worker.status.TaskStatus",
        "read_status": "app.worker.status.read_status",
        "ResultBackend": "app.worker.result_backend.ResultBackend",
        "count_redelivery": "app.worker.redelivery.count_redelivery",
        "excuse_redelivery": "app.worker.redelivery.excuse_redeliveries",
    },
)
