"""The outbox: tasks that are committed to the database with the data, and published from there by a relay.

Every API process has a relay, which its own commits wake, and which looks every `INTERVAL` seconds for what others left. No lock
is needed: Redis publishes a row once (`idempotency`), a batch in one step, and every relay begins with the oldest row. So a relay
may be killed or frozen anywhere.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import session_scope
from app.core.logging import error_repr
from app.models.tasks import OutboxMessage
from app.worker import idempotency, job_limit, once, records
from app.worker.broker import QueueUnavailable, within_limit
from app.worker.idempotency import Once
from app.worker.owners import HEADER
from app.worker.pipeline import Command, Commands, execute, failures
from app.worker.status import UNTRACKED, TaskStatus

INTERVAL = 5.0
"""Seconds between two looks at the outbox: how late a task is whose process died after the commit."""

BATCH = 50
"""Messages that Redis takes in one step."""

KNOWN_FOR = 3600
"""Seconds for which Redis knows a published row: a relay may have died before it deleted the row."""

_WAIT = 0.5
"""Seconds for which a commit waits for the relay, so that the task is mostly known when a response has its id."""

_STOP_WAIT = 2.0
"""Seconds that the end of a process waits for the pass that its relay is in."""

_TRIM_EVERY = 60.0
_logger = structlog.get_logger("app.worker")


async def add(session: AsyncSession, task: str, task_id: str, message: Command) -> None:
    """Add a task to the session's transaction, given the command that would queue it."""
    _, queue, text = message
    row = {"task_id": task_id, "task": task[:255], "queue": queue, "message": text, "created_at": datetime.now(UTC)}
    # Not `session.add`: the order of the ids is the order of the calls.
    await session.execute(insert(OutboxMessage.__table__).values(row))  # type: ignore[arg-type]


async def find(task_id: str) -> TaskStatus | None:
    """Return the status of a task that is in the outbox, or None."""
    async with session_scope() as db:
        query = select(OutboxMessage.message, OutboxMessage.failed_at, OutboxMessage.error)
        row = (await db.execute(query.where(OutboxMessage.task_id == task_id).limit(1))).one_or_none()
    if row is None:
        return None
    if row.failed_at is not None:
        return TaskStatus(task_id, "FAILURE", error={"type": "NotPublished", "message": row.error or ""})
    try:
        headers, _ = _parsed(row.message, task_id)
    except ValueError:
        # The relay sets it aside.
        return TaskStatus(task_id, "PENDING")
    return TaskStatus(task_id, UNTRACKED if headers.get("ignore_result") else "PENDING", owner=headers.get(HEADER))


async def relay(*, most: int | None = None) -> int:
    """Publish what is in the outbox, oldest first, and return how many rows that were; at most `most` batches.

    Raises:
        app.worker.broker.QueueUnavailable: Redis refused or did not answer. The rows stay.
        sqlalchemy.exc.SQLAlchemyError, OSError: the database refused or did not answer. What was published stays too, and is not
            published again.
    """
    done = batches = 0
    while most is None or batches < most:
        async with session_scope() as db:
            waiting = select(OutboxMessage.id, OutboxMessage.task_id, OutboxMessage.queue, OutboxMessage.message)
            rows = (
                await db.execute(
                    waiting.where(OutboxMessage.failed_at.is_(None)).order_by(OutboxMessage.id).limit(BATCH)
                )
            ).all()
        if rows:
            await _relay_batch(rows)
        batches += 1
        done += len(rows)
        if len(rows) < BATCH:
            break
    return done


async def _relay_batch(rows: Sequence[Any]) -> None:
    refused: dict[int, str] = {}
    to_record: list[Command] = []
    to_count: list[Command] = []
    messages: dict[int, Once] = {}
    for row in rows:
        try:
            record, count = _commands(row)
        except ValueError as error:
            refused[row.id] = str(error)
        else:
            to_record += record
            to_count += count
            messages[row.id] = Once(row.queue, f"outbox/{row.task_id}/{row.id}", "1", row.message)
    if messages:
        refused |= await _publish(to_record, to_count, messages)
    for row_id, reason in refused.items():
        _logger.error("outbox_message_set_aside", row=row_id, error=reason)
    published = [row.id for row in rows if row.id not in refused]
    async with session_scope() as db:
        own = {"synchronize_session": False}
        await db.execute(delete(OutboxMessage).where(OutboxMessage.id.in_(published)), execution_options=own)
        for row_id, reason in refused.items():
            aside = update(OutboxMessage).where(OutboxMessage.id == row_id)
            await db.execute(aside.values(failed_at=datetime.now(UTC), error=reason[:500]), execution_options=own)


def _commands(row: Any) -> tuple[list[Command], list[Command]]:
    """Return the commands that record a task, and those that count it as a job of its owner."""
    headers, queue = _parsed(row.message, row.task_id)
    owner = headers.get(HEADER)
    return records.commands(headers, queue), [job_limit.addition(owner, [row.task_id])] if owner else []


def _parsed(text: str, task_id: str) -> tuple[dict[str, Any], str | None]:
    """Return the headers of a message, and its queue.

    Raises:
        ValueError: it is not a message of this task.
    """
    message = json.loads(text)
    headers = message.get("headers") if isinstance(message, dict) else None
    if not isinstance(headers, dict) or headers.get("id") != task_id:
        raise ValueError(f"the message is not one of task {task_id}")
    properties = message.get("properties")
    delivery = properties.get("delivery_info") if isinstance(properties, dict) else None
    return headers, delivery.get("routing_key") if isinstance(delivery, dict) else None


async def _publish(to_record: list[Command], to_count: list[Command], messages: dict[int, Once]) -> dict[int, str]:
    """Publish messages by the ids of their rows; return those that cannot be, with the reason."""
    async with within_limit():
        publication = idempotency.publication(messages.values(), KNOWN_FOR)
        # Counted first: a task may end before its message is answered.
        replies = await execute(Commands([*to_record, *to_count], [publication]))
        for error in failures(replies.broker):
            raise QueueUnavailable("The outbox cannot be published; its tasks wait.") from error
    task_ids = [one.key.split("/")[1] for one in messages.values()]
    recorded, counted = replies.before[: len(to_record)], replies.before[len(to_record) :]
    await records.check(to_record, recorded, task_ids)
    for error in failures(counted):
        _logger.warning("job_not_counted", task_ids=task_ids[:10], error=error_repr(error))
    outcomes = zip(messages.items(), replies.broker[0], strict=True)
    return {
        row_id: f"the Redis key {one.queue!r} is a {outcome.decode()}, not a queue"
        for (row_id, one), outcome in outcomes
        if outcome not in {b"", one.value.encode()}
    }


class _Relay:
    """The relay of one event loop."""

    def __init__(self) -> None:
        self._awake = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._is_blocked = False
        self._is_stopping = False
        self._trimmed_at = float("-inf")

    async def wake(self) -> None:
        """Start a pass now; return when it has ended, or soon if that takes long."""
        self._awake.set()
        if not self._is_blocked:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await asyncio.wait([waiting], timeout=_WAIT)

    def stop(self) -> None:
        """Let `run` return after the pass that it is in."""
        self._is_stopping = True
        self._awake.set()

    async def run(self) -> None:
        """Relay until `stop` is called."""
        while not self._is_stopping:
            waiting, self._waiting = self._waiting, []
            self._awake.clear()
            try:
                await self._pass()
            finally:
                for one in waiting:
                    if not one.done():
                        one.set_result(None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._awake.wait()

    async def _pass(self) -> None:
        try:
            await relay()
            if time.monotonic() - self._trimmed_at > _TRIM_EVERY:
                self._trimmed_at = time.monotonic()
                async with session_scope() as db:
                    await once.trim(db)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next pass tries again
            # Once for each outage.
            if not self._is_blocked:
                _logger.warning("outbox_blocked", error=error_repr(error.__cause__ or error))
            self._is_blocked = True
        else:
            if self._is_blocked:
                _logger.info("outbox_continues")
            self._is_blocked = False


_relays: dict[asyncio.AbstractEventLoop, _Relay] = {}


async def kick() -> None:
    """Publish what this process has just committed: by the relay of the event loop, or, in a worker, at once."""
    running = _relays.get(asyncio.get_running_loop())
    if running is not None:
        await running.wake()
    else:
        await relay(most=1)


@asynccontextmanager
async def running() -> AsyncIterator[None]:
    """Run a relay on this event loop during the block."""
    loop = asyncio.get_running_loop()
    own = _relays[loop] = _Relay()
    task = loop.create_task(own.run())
    try:
        yield
    finally:
        del _relays[loop]
        own.stop()
        # A query that is cancelled may outlive the event loop: aiosqlite's thread fails then.
        await asyncio.wait([task], timeout=_STOP_WAIT)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
