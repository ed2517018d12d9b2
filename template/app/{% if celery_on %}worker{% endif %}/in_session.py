"""Send the messages of tasks when the transaction of a database session is committed."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import structlog
from redis.exceptions import ResponseError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.logging import error_repr
from app.worker import idempotency, job_limit, outbox, owners, queue_depth
from app.worker.after_commit import hold
from app.worker.broker import QueueUnavailable, in_thread, within_limit
from app.worker.bulk import AT_ONCE, check_size, send_many
from app.worker.flow_control import NotQueued
from app.worker.job_limit import Jobs, TooManyJobs
from app.worker.memory_limit import check_memory
from app.worker.messages import Collected, collect
from app.worker.once import claim, release
from app.worker.pipeline import Commands, execute
from app.worker.sending import admit, forget, is_depth_limited, queued_task, raise_first, send, undo, undoing
from app.worker.typing import AsyncResult

_Call = Callable[[], Awaitable[None]]

_logger = structlog.get_logger(__name__)


async def publish_in_session(
    signature: Any, owner: str | None, session: AsyncSession, stored: bool, idempotency_key: str | None
) -> AsyncResult[Any]:
    """Hold the message of a task until the commit, or store it in the outbox if it is to be `stored`.

    Raises:
        ValueError: the transaction holds too many calls, or the message cannot be collected.
        app.worker.idempotency.IdempotencyKeyReused: the key was used for another call.
        app.worker.job_limit.TooManyJobs, NotQueued: a limit refuses it.
        app.worker.serializer.InvalidArguments: a message cannot contain its arguments.
        QueueUnavailable: Redis is nearly full, refused or did not answer.
        sqlalchemy.exc.DBAPIError: the database refuses the key or the row.
    """
    task_id = job_limit.new_id(signature)
    if not stored:
        await _check_broker()
    with owners.owned_by(owner):
        made: Collected[AsyncResult[Any]] = await collect(signature.apply_async, task_id=task_id)
    if made.message is None:
        return made.result
    undone = functools.partial(undo, made.undo) if made.undo else None
    key = None
    async with undoing(made.undo):
        if idempotency_key is not None:
            key = idempotency.key_of_call(owner, idempotency_key, signature)
            earlier = await claim(session, key.name, f"{key.call} {task_id}", timedelta(seconds=key.expires))
            if earlier is not None:
                await undo(made.undo)
                return queued_task(idempotency.queued_id(earlier.value or "", key.call, signature.task))
        try:
            if stored:
                await outbox.add(session, signature.task, task_id, made.message)
                hold(session, outbox.kick, undo=undone)
            else:
                await _check_room([signature])
                async with within_limit():
                    jobs = await admit(owner, [task_id])
                to_send = functools.partial(send, made.record, [made.message], jobs)
                hold(session, functools.partial(_send_after_commit, to_send, jobs, [signature], undone), undo=undone)
        except (NotQueued, TooManyJobs, QueueUnavailable, ValueError):
            if key is not None:
                # The caller may commit nevertheless.
                await release(session, key.name)
            raise
    return made.result


async def publish_many_in_session(
    signatures: list[Any], owner: str | None, session: AsyncSession
) -> list[AsyncResult[Any]]:
    """Hold the messages of tasks, which are then sent in one step.

    Raises:
        RuntimeError: a task made no message.
        ValueError, app.worker.job_limit.TooManyJobs, NotQueued, app.worker.serializer.InvalidArguments, QueueUnavailable:
            see `publish_in_session`.
    """
    task_ids = [job_limit.new_id(signature) for signature in signatures]
    await _check_broker()
    await _check_room(signatures)
    results, to_record, messages = [], [], []
    with owners.owned_by(owner):
        for number, signature in enumerate(signatures):
            made: Collected[AsyncResult[Any]] = await collect(signature.apply_async, task_id=task_ids[number])
            results.append(made.result)
            to_record.extend(made.record)
            if made.message is None:
                raise RuntimeError(f"{signature.task} made no message")
            messages.append(made.message)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
    check_size(messages)
    async with within_limit():
        jobs = await admit(owner, task_ids)
    to_send = functools.partial(send_many, to_record, messages, jobs)
    hold(session, functools.partial(_send_after_commit, to_send, jobs, signatures))
    return results


async def _check_broker() -> None:
    """Raise an error while nothing is committed yet, if Redis is down or nearly full."""
    async with within_limit():
        await check_memory()
        raise_first((await execute(Commands(broker=[("PING",)]))).broker)


async def _check_room(signatures: list[Any]) -> None:
    """Raise an error while nothing is committed yet, if a queue has no room."""
    if is_depth_limited():
        for one in {(one.task, one.options.get("queue")): one for one in signatures}.values():
            await in_thread(queue_depth.check_first, one)


async def _send_after_commit(to_send: _Call, jobs: Jobs, signatures: list[Any], undone: _Call | None = None) -> None:
    """Send the messages of signatures; `undone` undoes what was stored for a message."""
    try:
        async with within_limit():
            await to_send()
    except (QueueUnavailable, NotQueued) as error:
        # The data is committed: after an error the caller would do it twice.
        reason = error.__cause__ or error
        for task_id, signature in zip(jobs.task_ids, signatures, strict=True):
            _logger.error(
                "task_not_queued_after_commit", task=signature.task, task_id=task_id, error=error_repr(reason)
            )
        if isinstance(reason, ResponseError | NotQueued):
            # They are not queued; after another error they may be.
            await forget(jobs)
            if undone:
                await undone()
