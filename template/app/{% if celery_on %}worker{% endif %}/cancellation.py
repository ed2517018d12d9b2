"""Read, wait for and cancel tasks from `async def` code, without blocking the event loop."""

import asyncio
from collections.abc import Sequence

from app.worker import history, revocation
from app.worker.broker import in_thread
from app.worker.bulk import MAX_MANY
from app.worker.status import TaskStatus, read_status

_POLL_INTERVAL = 0.1


async def status_of(task_id: str) -> TaskStatus | None:
    """Return the status of the task, or None for an unknown id.

    Raises:
        QueueUnavailable: see `enqueue`.
    """
    status = await in_thread(read_status, task_id)
    return status if status is not None else await _find_in_outbox(task_id)


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
    status = await in_thread(_cancel, task_id, terminate)
    if status is not None or await _find_in_outbox(task_id) is None:
        return status
    # The relay publishes it, and no worker runs it.
    return await in_thread(_revoke, task_id, terminate)


async def cancel_many(task_ids: Sequence[str], *, terminate: bool = True) -> None:
    """Cancel up to `MAX_MANY` tasks, of which those that have ended do not change; see `cancel`. None may be in the outbox.

    Raises:
        ValueError: there are more.
        QueueUnavailable: see `enqueue`. The same call may be made again.
    """
    if len(task_ids) > MAX_MANY:
        raise ValueError(f"{len(task_ids)} tasks, where one call cancels {MAX_MANY}.")
    await in_thread(revocation.cancel_many, task_ids, terminate=terminate)


async def _find_in_outbox(task_id: str) -> TaskStatus | None:
    from app.worker import outbox  # noqa: PLC0415 - see `publish.enqueue`

    return await outbox.find(task_id)


def _cancel(task_id: str, terminate: bool) -> TaskStatus | None:
    status = _recorded_status(task_id)
    if status is None or status.ready:
        return status
    return _revoke(task_id, terminate)


def _revoke(task_id: str, terminate: bool) -> TaskStatus | None:
    revocation.cancel(task_id, terminate=terminate)
    return _recorded_status(task_id)


def _recorded_status(task_id: str) -> TaskStatus | None:
    status = read_status(task_id)
    # A result expires before the record: that of a task with a long countdown too.
    record = history.read(task_id) if status is None else None
    return TaskStatus(task_id, record.state, error=record.error, owner=record.owner) if record else status
