"""The status of a task, read from the result store."""

import re
from dataclasses import dataclass, replace
from typing import Any

from celery import current_app, states

from app.worker.broker import result_key, results_client
from app.worker.owners import owner_key

UNTRACKED = "UNTRACKED"
"""The state of a task that ignores its result: it was queued, and only a failure is stored."""

_MAX_ERROR_LENGTH = 500
_STATE = re.compile(rb'"status": ?"(\w+)"')


@dataclass(frozen=True)
class TaskStatus:
    """A task's state, with its result after SUCCESS, its progress while it runs, its error after RETRY, FAILURE or REVOKED."""

    task_id: str
    status: str
    result: Any = None
    error: dict[str, str] | None = None
    owner: str | None = None
    """See `app.worker.owners`; None for a task of beat or of a script."""

    @property
    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.status in states.READY_STATES


def read_status(task_id: str) -> TaskStatus | None:
    """Return the status of the task, or None for an id that was never queued or whose record has expired.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    stored, owner = results_client().mget(result_key(task_id), owner_key(task_id))
    if stored is None:
        return None
    status = _parse(task_id, stored)
    return replace(status, owner=owner.decode()) if status and owner else status


def _parse(task_id: str, stored: bytes) -> TaskStatus | None:
    backend: Any = current_app.backend
    try:
        return _status(task_id, backend.decode_result(stored))
    except Exception as unreadable:  # noqa: BLE001 - what another program stored may raise anything
        state = _STATE.search(stored)
        if state is None:
            return None
        # The state is readable, the rest is not.
        error = {"type": "DecodeError", "message": error_text(unreadable)}
        return TaskStatus(task_id, state[1].decode(), error=error)


def _status(task_id: str, meta: dict[str, Any]) -> TaskStatus:
    status, value = str(meta["status"]), meta["result"]
    if status in states.EXCEPTION_STATES:
        return TaskStatus(task_id, status, error={"type": type(value).__name__, "message": error_text(value)})
    # A task's own state, stored by `update_state`, comes with its progress; STARTED comes with the worker's name.
    is_shown = status == states.SUCCESS or status not in states.ALL_STATES
    return TaskStatus(task_id, status, result=value if is_shown else None)


def error_text(error: Any) -> str:
    """Return the message of an exception, at most 500 characters of it."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception of the application, created again from its arguments alone
        text = repr(getattr(error, "args", ()))
    return text[:_MAX_ERROR_LENGTH]
