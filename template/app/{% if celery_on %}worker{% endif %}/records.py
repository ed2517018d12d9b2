"""What is known of a task: Celery calls an unknown id PENDING, so each published task leaves a record."""

from dataclasses import dataclass
from typing import Any

import structlog
from celery import current_app, states
from celery.backends.redis import RedisBackend
from celery.signals import before_task_publish
from redis.exceptions import RedisError

UNTRACKED = "UNTRACKED"
"""The state of a task that ignores its result: it was queued, and only a failure is kept."""

_ERROR_LENGTH = 500

_logger = structlog.get_logger("app.worker")


class ResultBackend(RedisBackend):
    """Celery's Redis backend, which listens for a result only when somebody waits for it and takes RETRY from the task.

    Celery subscribes at every `.delay()`; a process that only publishes never reads those messages, and with a frozen
    Redis the subscription blocks far longer than the publishing (https://github.com/celery/celery/issues/6963).

    Celery says RETRY when the next attempt is queued already: where that one ends first, RETRY would be the last word.
    `AppTask.retry` says it before.
    """

    result_consumer: Any

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: see the class."""

    def add_pending_result(self, result: Any, *args: Any, **kwargs: Any) -> Any:
        """Subscribe to a result that is waited for."""
        self.result_consumer.consume_from(result.id)
        return super().add_pending_result(result, *args, **kwargs)

    def mark_as_retry(self, task_id: str, exc: Any, *args: Any, **kwargs: Any) -> Any:
        """Do nothing: see the class."""
        return exc


@dataclass(frozen=True)
class TaskStatus:
    """A task's state, its result after SUCCESS, and what went wrong after RETRY, FAILURE or REVOKED."""

    task_id: str
    status: str
    result: Any = None
    error: dict[str, str] | None = None

    @property
    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.status in states.READY_STATES


def connect() -> None:
    """Record each task when it is published."""
    before_task_publish.connect(_record, weak=False)


def read_status(task_id: str) -> TaskStatus | None:
    """Return what is known of the task, or None for an id that was never queued or whose record has expired.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    backend: Any = current_app.backend
    stored = backend.client.get(backend.get_key_for_task(task_id))
    if stored is None:
        return None
    meta = backend.decode_result(stored)
    status, value = meta["status"], meta["result"]
    if status in states.EXCEPTION_STATES:
        error = {"type": type(value).__name__, "message": str(value)[:_ERROR_LENGTH]}
        return TaskStatus(task_id, status, error=error)
    return TaskStatus(task_id, status, result=value if status == states.SUCCESS else None)


def count_redelivery(task_id: str) -> int:
    """Count one more delivery of the task and return how many there were; forgotten a day after the last."""
    backend: Any = current_app.backend
    key = f"redelivered:{task_id}"
    with backend.client.pipeline() as pipe:
        pipe.incr(key)
        pipe.expire(key, 86400)
        return int(pipe.execute()[0])


def _record(headers: dict[str, Any], **_: object) -> None:
    backend: Any = current_app.backend
    meta = {
        "status": UNTRACKED if headers.get("ignore_result") else states.PENDING,
        "result": None,
        "traceback": None,
        "children": [],
        "task_id": headers["id"],
    }
    try:
        # NX: a retry is published under the same id and must not wipe out its state.
        backend.client.set(
            backend.get_key_for_task(headers["id"]), backend.encode(meta), nx=True, ex=current_app.conf.result_expires
        )
    except RedisError as error:
        # The task itself can still be queued, as the broker may be another server.
        _logger.warning("task_not_recorded", task_id=headers["id"], error=repr(error))
