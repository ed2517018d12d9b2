"""Run a function when the transaction of a session is committed, and never when it is rolled back.

SQLAlchemy's `after_commit` is not enough: it is also sent for the release of a savepoint, whose outer transaction may still be
rolled back, and while the session still has its connection.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util.concurrency import await_

from app.core.logging import error_repr

Send = Callable[[], Awaitable[object]]

MAX_HELD = 1000
"""Functions that one transaction may hold."""

_INFO = "app.worker.after_commit"
_logger = structlog.get_logger("app.worker")
# asyncio itself keeps only weak references.
_sending: set[asyncio.Task[None]] = set()


@dataclass(slots=True)
class _Call:
    transaction: SessionTransaction
    send: Send
    undo: Send | None


@dataclass(slots=True)
class _Held:
    calls: list[_Call] = field(default_factory=list)
    committed: SessionTransaction | None = None
    """The transaction or savepoint that is committed and not closed yet."""


def hold(session: AsyncSession, send: Send, *, undo: Send | None = None) -> None:
    """Call `send` once after the current transaction is committed; drop it if that, or its savepoint, is rolled back.

    `await session.commit()` returns when `send` has returned. If it raises, that is logged: the data is committed. It is
    not interrupted if the caller of `commit` is cancelled. The same function is called once.

    After a rollback, `undo` is called instead. Nobody waits for it: a rollback is done, whatever Redis does.

    Raises:
        ValueError: the transaction holds `MAX_HELD` functions.
    """
    sync = session.sync_session
    if not sync.in_transaction():
        # Otherwise a rollback before the first query would not be reported.
        sync.begin()
    held = sync.info.get(_INFO)
    if held is None:
        held = sync.info[_INFO] = _Held()
        event.listen(sync, "after_commit", _note_commit)
        event.listen(sync, "after_transaction_end", _end)
    if len(held.calls) >= MAX_HELD:
        raise ValueError(
            f"one transaction holds at most {MAX_HELD} calls of enqueue; commit in between, or queue a task that queues them."
        )
    held.calls.append(_Call(_innermost(sync), send, undo))


def _innermost(session: Session) -> SessionTransaction:
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is None:
        raise RuntimeError("the session has no transaction")
    return transaction


def _note_commit(session: Session) -> None:
    session.info[_INFO].committed = _innermost(session)


def _end(session: Session, transaction: SessionTransaction) -> None:
    held: _Held = session.info[_INFO]
    is_committed = held.committed is transaction
    if is_committed:
        held.committed = None
    own = [call for call in held.calls if call.transaction is transaction]
    if not own:
        return
    outer = transaction.parent
    if is_committed and outer is not None:
        # A savepoint was released: what it holds depends on the transaction around it.
        for call in own:
            call.transaction = outer
        return
    held.calls = [call for call in held.calls if call.transaction is not transaction]
    if is_committed:
        _send(dict.fromkeys(call.send for call in own))
    elif undos := dict.fromkeys(call.undo for call in own if call.undo):
        _start(undos)


def _send(sends: dict[Send, Any]) -> None:
    await_(asyncio.shield(_start(sends)))


def _start(sends: dict[Send, Any]) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(_send_all(list(sends)))
    _sending.add(task)
    task.add_done_callback(_sending.discard)
    return task


async def _send_all(sends: list[Send]) -> None:
    # In the order in which they were held: those that come together share a round trip.
    for outcome in await asyncio.gather(*(_awaited(send) for send in sends), return_exceptions=True):
        if isinstance(outcome, Exception):
            _logger.error("not_sent_after_commit", error=error_repr(outcome))
        elif isinstance(outcome, BaseException):
            raise outcome


async def _awaited(send: Send) -> None:
    await send()
