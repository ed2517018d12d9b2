"""Revocations that survive workers: Celery's workers keep them in memory only, and forget them when they restart.

Each revoked id is stored in the result store's database, whoever revoked it: `cancel`, `AsyncResult.revoke`,
`celery control revoke`, Flower. A worker looks up the id before it runs a task.
"""

from collections.abc import Iterable
from typing import Any

import structlog
from celery import current_app, signals, states
from celery.app.control import Control
from celery.exceptions import Ignore
from celery.utils.functional import maybe_list
from celery.worker.control import control_command
from celery.worker.control import revoke as _revoke_in_worker
from redis.exceptions import RedisError

from app.worker.broker import results_client

EXPIRES = 30 * 86400
"""Seconds for which a revocation is stored; a longer countdown runs afterwards."""

_logger = structlog.get_logger("app.worker")


class RevocationControl(Control):
    """Celery's remote control, which stores what it revokes, also while no worker is running."""

    def broadcast(self, command: str, arguments: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Send a command to workers, after storing what it revokes.

        Raises:
            redis.exceptions.RedisError: the revocation could not be stored; it was not sent.
        """
        if command == "revoke":
            store(maybe_list((arguments or {}).get("task_id")) or [])
        return super().broadcast(command, arguments, *args, **kwargs)


@control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def _revoke(state: Any, task_id: Any, *args: Any, **kwargs: Any) -> Any:
    """Store what another program than this application revokes in a worker, then revoke it."""
    try:
        store(maybe_list(task_id) or [])
    except RedisError as error:
        _logger.warning("revocation_not_stored", task_ids=task_id, error=repr(error))
    return _revoke_in_worker(state, task_id, *args, **kwargs)


def store(task_ids: Iterable[str]) -> None:
    """Make every worker revoke each of these tasks from now on.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    with results_client().pipeline(transaction=False) as pipe:
        for task_id in task_ids:
            pipe.set(_key(task_id), 1, ex=EXPIRES)
        pipe.execute()


def stop_if_revoked(task: Any) -> None:
    """Return if the task may run.

    Raises:
        celery.exceptions.Ignore: it was revoked; its state and its chord are updated.
    """
    request = task.request
    try:
        if not results_client().exists(_key(request.id)):
            return
    except RedisError as error:
        # At least once: a task that cannot be looked up runs.
        _logger.warning("revocation_not_checked", task_id=request.id, error=repr(error))
        return
    is_stored = not request.ignore_result or task.store_errors_even_if_ignored
    task.backend.mark_as_revoked(request.id, "revoked", request=request, store_result=is_stored)
    signals.task_revoked.send(sender=task, request=request, terminated=False, signum=None, expired=False)
    raise Ignore(f"{task.name}[{request.id}] was revoked")


def cancel(task_id: str, *, terminate: bool) -> None:
    """Revoke a task that has not ended.

    Raises:
        redis.exceptions.RedisError, kombu.exceptions.OperationalError: Redis does not answer.
    """
    backend: Any = current_app.backend
    # First: a task that starts after this line is stopped, so that one that has not started yet does not run.
    store([task_id])
    if backend.get_state(task_id) in {states.PENDING, states.RETRY}:
        backend.mark_as_revoked(task_id, "cancelled")
    current_app.control.revoke(task_id, terminate=terminate)


def _key(task_id: str) -> str:
    return f"revoked:{task_id}"
