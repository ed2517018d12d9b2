"""Send up to a thousand tasks' messages in one step."""

import asyncio
from typing import Any, TypeVar

from app.worker import job_limit, owners, records
from app.worker.broker import within_limit
from app.worker.job_limit import Jobs
from app.worker.messages import on_loop
from app.worker.pipeline import Command, Commands, execute
from app.worker.sending import admit, forget, send
from app.worker.serializer import InvalidArguments
from app.worker.typing import AsyncResult

R = TypeVar("R")

MAX_MANY = 1000
"""Tasks of one call of `enqueue_many` or `cancel_many`."""

MAX_MANY_BYTES = 32 * 1024 * 1024
"""Bytes of the messages of one call of `enqueue_many`, which Redis takes in one step."""

AT_ONCE = 10
"""Tasks whose messages are built before the event loop does other work."""

_RECORDS_AT_ONCE = 300
"""Records in one round trip."""


async def publish_many(signatures: list[Any], owner: str | None) -> list[AsyncResult[R]]:
    """Queue single tasks in one step: all of them or none.

    Raises:
        ValueError: a message cannot be collected; see `on_loop`.
        app.worker.job_limit.TooManyJobs, app.worker.flow_control.NotQueued: a limit refuses them.
        InvalidArguments: a message cannot contain the arguments of one, or all of them are too large.
        app.worker.broker.QueueUnavailable: Redis refused them, or does not answer; then they may be queued.
    """
    task_ids = [job_limit.new_id(signature) for signature in signatures]
    async with within_limit():
        jobs = await admit(owner, task_ids)
    to_record: list[Command] = []
    to_queue: list[Command] = []
    # Each is in the middle of Celery's `apply_async` until all are sent, so that none is reported as published before.
    publishing: list[asyncio.Task[AsyncResult[R]]] = []
    sent = [asyncio.Event() for _ in range(0, len(signatures), AT_ONCE)]

    async def publish(number: int) -> AsyncResult[R]:
        async def collected(record: list[Command], message: list[Command]) -> None:
            to_record.extend(record)
            to_queue.extend(message)
            await sent[number // AT_ONCE].wait()

        apply_async = signatures[number].apply_async
        return await on_loop(apply_async, collected, only_direct=True, task_id=task_ids[number])

    try:
        with owners.owned_by(owner):
            for number in range(len(signatures)):
                publishing.append(asyncio.create_task(publish(number)))
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in publishing:
            if task.done():
                task.result()
        check_size(to_queue)
        await send_many(to_record, to_queue, jobs)
        for number, event in enumerate(sent):
            event.set()
            await asyncio.gather(*publishing[number * AT_ONCE : (number + 1) * AT_ONCE])
        return [task.result() for task in publishing]
    except Exception:
        await forget(jobs)
        raise
    finally:
        for task in publishing:
            task.cancel()
        await asyncio.gather(*publishing, return_exceptions=True)


async def send_many(to_record: list[Command], to_queue: list[Command], jobs: Jobs) -> None:
    """Store the records, then queue the messages: all of them or none.

    Raises:
        app.worker.queue_depth.QueueTooLong: a queue has no room.
        app.worker.broker.QueueUnavailable: Redis refused them, or does not answer; then they may be queued.
    """
    recorded: list[str] = []
    async with within_limit():
        for first in range(0, len(to_record), _RECORDS_AT_ONCE):
            part = to_record[first : first + _RECORDS_AT_ONCE]
            recorded += await records.check(part, (await execute(Commands(before=part))).before, jobs.task_ids)
        await send([], to_queue, jobs, recorded)


def check_size(messages: list[Command]) -> None:
    """Return if Redis may take all messages in one step.

    Raises:
        InvalidArguments: they have more than `MAX_MANY_BYTES`.
    """
    if sum(len(message) for _, _, message in messages) > MAX_MANY_BYTES:
        raise InvalidArguments(
            f"the messages have more than {MAX_MANY_BYTES} bytes; call enqueue_many with fewer tasks."
        )
