"""Queue, read, wait for and cancel tasks from `async def` code, without blocking the event loop."""

import asyncio
import contextlib
from typing import Any, TypeVar

import structlog
from redis.exceptions import RedisError

from app.worker import job_limit, owners, records, revocation
from app.worker.broker import QueueUnavailable, check_queue, in_thread
from app.worker.status import TaskStatus, read_status
from app.worker.typing import AsyncResult, Signature

__all__ = ["QueueUnavailable", "cancel", "check_queue", "enqueue", "in_thread", "status_of", "wait_for"]

R = TypeVar("R")

_POLL_INTERVAL = 0.1
_logger = structlog.get_logger(__name__)


async def enqueue(signature: Signature[R], owner: str | None = None) -> AsyncResult[R]:
    """Queue a task, or a chain, group or chord: `await enqueue(send_email_task.s(...).set(queue="high"))`.

    Args:
        signature: what to queue.
        owner: the owner of the job, who may have a limited number of them; a group does not count. In a task, None is the
            owner of that task.

    Raises:
        app.worker.serializer.InvalidArguments: a message cannot contain the arguments.
        app.worker.job_limit.TooManyJobs: the owner has `CELERY_MAX_JOBS_PER_OWNER` unfinished jobs.
        QueueUnavailable: Redis refused or did not answer in `CELERY_PUBLISH_TIMEOUT` seconds.
    """
    return await in_thread(_publish, signature, owner)


async def status_of(task_id: str) -> TaskStatus | None:
    """Return the status of the task, or None for an unknown id.

    Raises:
        QueueUnavailable: see `enqueue`.
    """
    return await in_thread(read_status, task_id)


async def wait_for(task_id: str, seconds: float) -> TaskStatus | None:
    """Return the task's status when it has ended, at the latest after `seconds`; the event loop is not blocked.

    Raises:
        QueueUnavailable: see `enqueue`.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        status = await status_of(task_id)
        if status is None or status.ready or asyncio.get_running_loop().time() >= deadline:
            return status
        await asyncio.sleep(_POLL_INTERVAL)


async def cancel(task_id: str, *, terminate: bool = True) -> TaskStatus | None:
    """Cancel a task and return its status afterwards, or None for an unknown id.

    A task that waits, has a countdown or is to be retried does not run: REVOKED. A running one is terminated in a prefork
    worker if `terminate` is true; a thread cannot be terminated and runs to its end. A task that has ended does not change.

    Raises:
        QueueUnavailable: see `enqueue`. The task may be cancelled nevertheless.
    """
    return await in_thread(_cancel, task_id, terminate)


def _publish(signature: Signature[R], owner: str | None) -> AsyncResult[R]:
    if owner is None:
        return _queue(signature, None)
    task_id = job_limit.admit(owner, signature)
    with owners.owned_by(owner):
        try:
            result = _queue(signature, task_id)
        except BaseException:
            if task_id:
                with contextlib.suppress(RedisError):
                    job_limit.remove(owner, task_id)
            raise
    if task_id:
        try:
            job_limit.confirm(owner, task_id)
        except RedisError as error:
            # It is queued: after an error the caller would queue it twice.
            _logger.warning("job_not_counted", task_id=task_id, error=repr(error))
    return result


def _queue(signature: Signature[R], task_id: str | None) -> AsyncResult[R]:
    options: dict[str, Any] = {"task_id": task_id} if task_id else {}
    result = signature.apply_async(**options)
    if result.parent is not None:
        records.record_steps(result, owners.current_owner(None))
    return result


def _cancel(task_id: str, terminate: bool) -> TaskStatus | None:
    status = read_status(task_id)
    if status is None or status.ready:
        return status
    revocation.cancel(task_id, terminate=terminate)
    return read_status(task_id)
