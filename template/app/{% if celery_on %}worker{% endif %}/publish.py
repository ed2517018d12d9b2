"""Talking to Redis from `async def` code without ever stopping the event loop."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import anyio
import structlog
from celery import current_app
from celery.canvas import Signature
from celery.result import AsyncResult
from kombu.exceptions import LimitExceeded, OperationalError
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.core.threads import BoundedThreads, ThreadsBusy
from app.worker import owners, revocation
from app.worker.records import TaskStatus, read_status, record_steps

P = ParamSpec("P")
R = TypeVar("R")

# With Redis frozen a thread is held until its socket times out, long after its request was answered: further requests then wait
# for a thread, and start none.
_THREADS = BoundedThreads("queue", 16, max_waiting=10_000, max_wait=celery_settings.publish_timeout)
_POLL = 0.1
_logger = structlog.get_logger(__name__)


class QueueUnavailable(Exception):
    """Redis did not answer in time. A task that was being queued may still run."""


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function that talks to Redis in a thread, for at most `CELERY_PUBLISH_TIMEOUT` seconds.

    Raises:
        QueueUnavailable: Redis refused or did not answer in that time.
    """
    try:
        with anyio.fail_after(celery_settings.publish_timeout):
            return await _THREADS.run(function, *args, **kwargs)
    except (TimeoutError, ThreadsBusy, LimitExceeded, OperationalError, RedisError) as error:
        raise QueueUnavailable("The task queue does not answer; try again later.") from error


async def enqueue(signature: Signature[Any], owner: str | None = None) -> AsyncResult[Any]:
    """Queue a task, or a chain, group or chord: `await enqueue(send_email_task.s(...).set(queue="high"))`.

    Args:
        signature: what to queue.
        owner: whose job it is, which bounds how many they have; a group counts as none. In a task None is the task's own.

    Raises:
        app.worker.serializer.InvalidArguments: a message cannot hold the arguments.
        app.worker.owners.TooManyJobs: the owner has `CELERY_MAX_JOBS_PER_OWNER` jobs that have not ended.
        QueueUnavailable: Redis refused or did not answer in `CELERY_PUBLISH_TIMEOUT` seconds.
    """
    return await in_thread(_publish, signature, owner)


async def status_of(task_id: str) -> TaskStatus | None:
    """Return what is known of the task, or None for an unknown id.

    Raises:
        QueueUnavailable: see `enqueue`.
    """
    return await in_thread(read_status, task_id)


async def wait_for(task_id: str, seconds: float) -> TaskStatus | None:
    """Return the task's status when it has ended, or what it is after `seconds`; the loop goes on meanwhile.

    Raises:
        QueueUnavailable: see `enqueue`.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        status = await status_of(task_id)
        if status is None or status.ready or asyncio.get_running_loop().time() >= deadline:
            return status
        await asyncio.sleep(_POLL)


async def cancel(task_id: str, *, terminate: bool = True) -> TaskStatus | None:
    """Stop a task, and return what is known of it then, or None for an unknown id.

    One that waits, has a countdown or is to be retried does not run any more: REVOKED. One that runs is ended in a prefork worker
    where `terminate` is true; a thread cannot be ended, there it runs to its end. One that has ended stays as it is.

    Raises:
        QueueUnavailable: see `enqueue`. The task may be stopped all the same.
    """
    return await in_thread(_cancel, task_id, terminate)


async def check_queue() -> None:
    """Return when the broker answers.

    Raises:
        QueueUnavailable: see `enqueue`.
    """
    await in_thread(_ping)


def _publish(signature: Signature[Any], owner: str | None) -> AsyncResult[Any]:
    if owner is None:
        return _queue(signature, None)
    task_id = owners.admit(owner, signature)
    with owners.owned_by(owner):
        try:
            result = _queue(signature, task_id)
        except BaseException:
            if task_id:
                with contextlib.suppress(RedisError):
                    owners.forget(owner, task_id)
            raise
    if task_id:
        try:
            owners.keep(owner, task_id)
        except RedisError as error:
            # It is queued: an error now would have it queued twice.
            _logger.warning("job_not_counted", task_id=task_id, error=repr(error))
    return result


def _queue(signature: Signature[Any], task_id: str | None) -> AsyncResult[Any]:
    result: AsyncResult[Any] = signature.apply_async(**({"task_id": task_id} if task_id else {}))
    if result.parent is not None:
        record_steps(result, owners.current_owner(None))
    return result


def _cancel(task_id: str, terminate: bool) -> TaskStatus | None:
    status = read_status(task_id)
    if status is None or status.ready:
        return status
    revocation.cancel(task_id, terminate=terminate)
    return read_status(task_id)


def _ping() -> None:
    pool: Any = current_app.pool
    with pool.acquire(block=True, timeout=2) as connection:
        connection.default_channel.client.ping()
