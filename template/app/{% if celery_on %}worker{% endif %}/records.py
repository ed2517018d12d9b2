"""What is known of a task: Celery calls an unknown id PENDING, so each published task leaves a record."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import structlog
from celery import current_app, states
from celery.backends.redis import RedisBackend
from celery.result import ResultSet
from celery.signals import before_task_publish
from redis.exceptions import RedisError

from app.worker.owners import HEADER, owner_key
from app.worker.state_writes import RetriedWrites
from app.worker.workflow_failures import EndedWorkflows

UNTRACKED = "UNTRACKED"
"""The state of a task that ignores its result: it was queued, and only a failure is kept."""

_ERROR_LENGTH = 500
_STATE = re.compile(rb'"status": ?"(\w+)"')

_logger = structlog.get_logger("app.worker")


class ResultBackend(RetriedWrites, EndedWorkflows, RedisBackend):
    """Celery's Redis backend, which listens for a result only when somebody waits for it and takes RETRY from the task.

    Celery subscribes at every `.delay()`; a process that only publishes never reads those messages, and with a frozen
    Redis the subscription blocks far longer than the publishing (https://github.com/celery/celery/issues/6963).

    Celery says RETRY when the next attempt is queued already: where that one ends first, RETRY would be the last word.
    `AppTask.retry` says it before.
    """

    result_consumer: Any

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: see the class."""

    def add_pending_result(self, result: Any, weak: bool | None = None, start_drainer: bool = True) -> Any:
        """Subscribe to a result that is waited for; a callback, which is how a group follows its members, waits for none."""
        if weak is not None and start_drainer:
            return result
        return super().add_pending_result(result, weak=bool(weak), start_drainer=start_drainer)

    def iter_native(self, result: Any, **kwargs: Any) -> Any:
        """Subscribe to the members of a group that is waited for."""
        self.add_pending_results(list(_members(result)))
        return super().iter_native(result, **kwargs)

    def mark_as_retry(self, task_id: str, exc: Any, *args: Any, **kwargs: Any) -> Any:
        """Do nothing: see the class."""
        return exc


@dataclass(frozen=True)
class TaskStatus:
    """A task's state, its result after SUCCESS or what it tells under way, and what went wrong after RETRY, FAILURE or REVOKED."""

    task_id: str
    status: str
    result: Any = None
    error: dict[str, str] | None = None
    owner: str | None = None
    """Whose it is: see `app.worker.owners`. None is nobody's: beat's, a script's."""

    @property
    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.status in states.READY_STATES


def connect() -> None:
    """Record each task when it is published."""
    before_task_publish.connect(_record_published, weak=False)


def read_status(task_id: str) -> TaskStatus | None:
    """Return what is known of the task, or None for an id that was never queued or whose record has expired.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    backend: Any = current_app.backend
    stored, owner = backend.client.mget(backend.get_key_for_task(task_id), owner_key(task_id))
    if stored is None:
        return None
    status = _read(task_id, stored)
    return replace(status, owner=owner.decode()) if status and owner else status


def _read(task_id: str, stored: bytes) -> TaskStatus | None:
    backend: Any = current_app.backend
    try:
        return _status(task_id, backend.decode_result(stored))
    except Exception as unreadable:  # noqa: BLE001 - what another program stored may raise anything
        state = _STATE.search(stored)
        if state is None:
            return None
        # The state is known, what came with it is not.
        error = {"type": "DecodeError", "message": _text(unreadable)}
        return TaskStatus(task_id, state[1].decode(), error=error)


def _status(task_id: str, meta: dict[str, Any]) -> TaskStatus:
    status, value = str(meta["status"]), meta["result"]
    if status in states.EXCEPTION_STATES:
        return TaskStatus(task_id, status, error={"type": type(value).__name__, "message": _text(value)})
    # A state of a task's own, as `update_state` stores it, comes with what the task says; STARTED with the worker's name.
    told = status == states.SUCCESS or status not in states.ALL_STATES
    return TaskStatus(task_id, status, result=value if told else None)


def _text(error: Any) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception of the application's, made again from its arguments alone
        text = repr(getattr(error, "args", ()))
    return text[:_ERROR_LENGTH]


def count_redelivery(task_id: str) -> int:
    """Count one more delivery of the task and return how many there were; forgotten a day after the last."""
    return _add_redeliveries([task_id], 1)[0]


def excuse_redelivery(task_ids: Iterable[str]) -> None:
    """Leave the next delivery of each task out of the count: it is none that the task has caused.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    _add_redeliveries(task_ids, -1)


def record_steps(result: Any, owner: str | None = None) -> None:
    """Record the steps of a chain or chord that a worker publishes later, given the result of the last one."""
    _record(_ids(result), owner)


def record_pending(task_ids: Iterable[str], owner: str | None = None) -> None:
    """Record tasks that are queued later, under ids that are known now."""
    _record(set(task_ids), owner)


def _add_redeliveries(task_ids: Iterable[str], number: int) -> list[int]:
    backend: Any = current_app.backend
    with backend.client.pipeline() as pipe:
        for task_id in task_ids:
            key = f"redelivered:{task_id}"
            pipe.incrby(key, number)
            pipe.expire(key, 86400)
        return [int(count) for count in pipe.execute()[::2]]


def _members(result: Any) -> Iterator[Any]:
    if isinstance(result, ResultSet):
        for member in result.results:
            yield from _members(member)
    else:
        yield result


def _ids(result: Any) -> set[str]:
    found = set()
    while result is not None:
        if isinstance(result, ResultSet):
            found |= {task_id for member in result.results for task_id in _ids(member)}
        else:
            found.add(result.id)
        result = result.parent
    return found


def _record_published(headers: dict[str, Any], **_: object) -> None:
    _record({headers["id"]}, headers.get(HEADER), untracked=bool(headers.get("ignore_result")))


def _record(task_ids: set[str], owner: str | None, *, untracked: bool = False) -> None:
    backend: Any = current_app.backend
    status = UNTRACKED if untracked else states.PENDING
    meta: dict[str, Any] = {"status": status, "result": None, "traceback": None, "children": []}
    try:
        with backend.client.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                value = backend.encode({**meta, "task_id": task_id})
                # A retry is published under the same id and must not wipe out its state.
                new_only = not untracked
                # First: a record without its owner would be nobody's.
                if owner:
                    pipe.set(owner_key(task_id), owner, ex=current_app.conf.result_expires)
                pipe.set(backend.get_key_for_task(task_id), value, nx=new_only, ex=current_app.conf.result_expires)
            pipe.execute()
    except RedisError as error:
        # The tasks themselves can still be queued, as the broker may be another server.
        _logger.warning("tasks_not_recorded", task_ids=sorted(task_ids)[:10], error=repr(error))
