"""Revocations that outlive the workers: Celery's workers keep them in memory alone, and forget them when they restart.

Each revoked id is kept in the results' database, whoever revoked it: `cancel`, `AsyncResult.revoke`, `celery control revoke`,
Flower. A worker looks for the id before it runs a task.
"""

from collections.abc import Iterable
from typing import Any

import structlog
from celery import current_app, signals, states
from celery.app.control import Control
from celery.exceptions import Ignore
from celery.utils.functional import maybe_list
from celery.worker.control import control_command
from celery.worker.control import revoke as _celerys_revoke
from redis.exceptions import RedisError

KEPT = 30 * 86400
"""Seconds for which a revocation holds; a countdown may be longer, and runs then."""

_logger = structlog.get_logger("app.worker")


class KeepingControl(Control):
    """Celery's remote control, which keeps what it revokes, also while no worker is up."""

    def broadcast(self, command: str, arguments: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Send a command to workers; what it revokes is kept first.

        Raises:
            redis.exceptions.RedisError: the revocation could not be kept; it was not sent.
        """
        if command == "revoke":
            keep(maybe_list((arguments or {}).get("task_id")) or [])
        return super().broadcast(command, arguments, *args, **kwargs)


@control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def _revoke(state: Any, task_id: Any, *args: Any, **kwargs: Any) -> Any:
    """Keep what a worker is told to revoke by a program that is not this application, then revoke it."""
    try:
        keep(maybe_list(task_id) or [])
    except RedisError as error:
        _logger.warning("revocation_not_kept", task_ids=task_id, error=repr(error))
    return _celerys_revoke(state, task_id, *args, **kwargs)


def keep(task_ids: Iterable[str]) -> None:
    """Have each task stopped by every worker that gets it from now on.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    backend: Any = current_app.backend
    with backend.client.pipeline(transaction=False) as pipe:
        for task_id in task_ids:
            pipe.set(_key(task_id), 1, ex=KEPT)
        pipe.execute()


def stop_if_revoked(task: Any) -> None:
    """Return if the task may run.

    Raises:
        celery.exceptions.Ignore: it was revoked; its state and its chord know of it.
    """
    request, backend = task.request, task.backend
    try:
        if not backend.client.exists(_key(request.id)):
            return
    except RedisError as error:
        # At least once: what cannot be looked up is run.
        _logger.warning("revocation_not_checked", task_id=request.id, error=repr(error))
        return
    stored = not request.ignore_result or task.store_errors_even_if_ignored
    backend.mark_as_revoked(request.id, "revoked", request=request, store_result=stored)
    signals.task_revoked.send(sender=task, request=request, terminated=False, signum=None, expired=False)
    raise Ignore(f"{task.name}[{request.id}] was revoked")


def cancel(task_id: str, *, terminate: bool) -> None:
    """Revoke a task that has not ended.

    Raises:
        redis.exceptions.RedisError, kombu.exceptions.OperationalError: Redis does not answer.
    """
    backend: Any = current_app.backend
    # First: a task that starts from here on is stopped, so that one that has not started has not run.
    keep([task_id])
    if backend.get_state(task_id) in {states.PENDING, states.RETRY}:
        backend.mark_as_revoked(task_id, "cancelled")
    current_app.control.revoke(task_id, terminate=terminate)


def _key(task_id: str) -> str:
    return f"revoked:{task_id}"
