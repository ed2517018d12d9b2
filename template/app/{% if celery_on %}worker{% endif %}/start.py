"""Whether a task may run. Its revocation is looked up and its redelivery counted in the call that stores STARTED.

A task without a result has no such call: the list of revocations is in memory, and only a redelivery is counted in Redis.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog
from celery.exceptions import Ignore
from redis.exceptions import RedisError

from app.core.logging import error_repr
from app.worker import redelivery, revocation

_logger = structlog.get_logger("app.worker")


class Superseded(Exception):
    """A task does not run, because another call replaces it: see `app.worker.waiting`."""


class Start(NamedTuple):
    """What the call that stores STARTED returns."""

    is_revoked: bool
    redeliveries: int
    """How often the task was redelivered; 0 if this is not a redelivery."""
    has_succeeded: bool = False
    """Whether a task with this id has succeeded: its message was delivered, or published, twice."""


def check(task: Any, task_id: str) -> None:
    """Return if the task may run.

    Raises:
        celery.exceptions.Ignore: it was revoked, has expired or has succeeded, or another call replaces it.
        app.worker.redelivery.RedeliveryLimitExceeded: it was redelivered more than `CELERY_MAX_REDELIVERIES` times.
        Exception: its message cannot be run by this release (`payload_versions`), or its key cannot be made (`waiting`).
    """
    request = task.request
    has_succeeded = False
    if has_started(request):
        is_revoked, redeliveries, has_succeeded = request.start
    else:
        is_revoked = not request.is_eager and _is_revoked(request)
        redeliveries = 0 if is_revoked or not is_redelivered(request) else _count(task_id)
    if is_revoked:
        revocation.stop(task)
    # Not in a chord, which its worker may not have told about the result before it died.
    if has_succeeded and not request.chord:
        _logger.info("task_skipped", task=task.name, task_id=task_id, reason="it has succeeded")
        raise Ignore(f"{task.name}[{task_id}] has succeeded")
    redelivery.check_limit(task, redeliveries)
    if request.expires and _has_passed(request.expires):
        # Celery looks when the message arrives, which may be long before the task starts.
        revocation.stop(task, "expired")
    refusal = request.__dict__.get("refusal")
    if isinstance(refusal, Superseded):
        revocation.stop(task, str(refusal))
    if isinstance(refusal, Exception):
        raise refusal


def _has_passed(moment: Any) -> bool:
    return datetime.fromisoformat(moment) < datetime.now(UTC) if isinstance(moment, str) else False


def has_started(request: Any) -> bool:
    """Return whether STARTED was stored for this run, with an answer in `request.start`."""
    # A header of the message may have any name, but not this type.
    return request is not None and isinstance(request.__dict__.get("start"), Start)


def is_redelivered(request: Any) -> bool:
    """Return whether the broker delivered this message before."""
    return bool((request.delivery_info or {}).get("redelivered"))


def _is_revoked(request: Any) -> bool:
    look_up = revocation.is_listed if request.ignore_result else revocation.is_stored
    try:
        return look_up(request.id)
    except RedisError as error:
        # At least once: a task that cannot be looked up runs.
        _logger.warning("revocation_not_checked", task_id=request.id, error=error_repr(error))
        return False


def _count(task_id: str) -> int:
    try:
        return redelivery.count_redelivery(task_id)
    except RedisError as error:
        # Raising would end the task before it ran; a delivery that is not counted only postpones the limit.
        _logger.warning("redelivery_not_counted", task_id=task_id, error=error_repr(error))
        return 0
