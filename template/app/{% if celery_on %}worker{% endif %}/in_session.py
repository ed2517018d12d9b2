"""Send the messages of tasks when the transaction of a database session is committed."""

import asyncio
import functools
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.worker import idempotency, job_limit, outbox, owners
from app.worker.after_commit import hold
from app.worker.broker import QueueUnavailable, within_limit
from app.worker.bulk import AT_ONCE, in_one_step, send_many
from app.worker.memory_limit import check_memory
from app.worker.messages import Collected, collect
from app.worker.once import claim
from app.worker.pipeline import Command, Commands, execute
from app.worker.sending import admit, queued_task, raise_first, send, undo, undoing
from app.worker.typing import AsyncResult

_logger = structlog.get_logger(__name__)


async def publish_in_session(
    signature: Any, owner: str | None, session: AsyncSession, stored: bool, idempotency_key: str | None
) -> AsyncResult[Any]:
    task_id = job_limit.new_id(signature)
    if not stored:
        await _check_broker()
    with owners.owned_by(owner):
        made: Collected[AsyncResult[Any]] = await collect(signature.apply_async, task_id=task_id)
    if made.message is None:
        return made.result
    undone = functools.partial(undo, made.undo) if made.undo else None
    async with undoing(made.undo):
        if idempotency_key is not None:
            key = idempotency.key_of_call(owner, idempotency_key, signature)
            earlier = await claim(session, key.name, f"{key.call} {task_id}", timedelta(seconds=key.expires))
            if earlier is not None:
                await undo(made.undo)
                return queued_task(idempotency.queued_id(earlier.value or "", key.call, signature.task))
        if stored:
            await outbox.add(session, signature.task, task_id, made.message)
            hold(session, outbox.kick, undo=undone)
        else:
            async with within_limit():
                await admit(owner, [task_id])
            sent = functools.partial(_send_after_commit, made.record, made.message, owner, task_id, signature.task)
            hold(session, sent, undo=undone)
    return made.result


async def publish_many_in_session(
    signatures: list[Any], owner: str | None, session: AsyncSession
) -> list[AsyncResult[Any]]:
    """Hold the messages of tasks, which are then sent in one step."""
    task_ids = [job_limit.new_id(signature) for signature in signatures]
    await _check_broker()
    results, to_record, messages = [], [], []
    with owners.owned_by(owner):
        for number, signature in enumerate(signatures):
            made: Collected[AsyncResult[Any]] = await collect(signature.apply_async, task_id=task_ids[number])
            results.append(made.result)
            to_record.extend(made.record)
            if made.message is not None:
                messages.append(made.message)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
    to_queue = in_one_step(messages)
    async with within_limit():
        await admit(owner, task_ids)
    hold(session, functools.partial(_send_many_after_commit, to_record, to_queue, owner, task_ids))
    return results


async def _check_broker() -> None:
    """Raise an error while nothing is committed yet, if Redis is down or nearly full."""
    async with within_limit():
        await check_memory()
        raise_first((await execute(Commands(broker=[("PING",)]))).broker)


async def _send_many_after_commit(
    to_record: list[Command], to_queue: list[Command], owner: str | None, task_ids: list[str]
) -> None:
    try:
        await send_many(to_record, to_queue, owner, task_ids)
    except QueueUnavailable as error:
        # See _send_after_commit.
        _logger.error(
            "tasks_not_queued_after_commit",
            task_ids=task_ids[:10],
            tasks=len(task_ids),
            error=repr(error.__cause__),
        )


async def _send_after_commit(
    to_record: list[Command], message: Command, owner: str | None, task_id: str, task: str
) -> None:
    try:
        async with within_limit():
            await send(to_record, [message], owner, [task_id])
    except QueueUnavailable as error:
        # The data is committed: after an error the caller would do it twice.
        _logger.error("task_not_queued_after_commit", task=task, task_id=task_id, error=repr(error.__cause__))
