"""`enqueue(…, after_commit=session)`: a task leaves when its transaction is committed, and never when it is rolled back."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from celery import chain, group
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.core.database import get_db, session_scope
from app.models.tasks import OnceKey
from app.tasks.process_task import process_task
from app.worker import after_commit, history, job_limit, messages, owners
from app.worker.broker import results_client
from app.worker.flow_control import Unique
from app.worker.job_limit import TooManyJobs
from app.worker.once import once
from app.worker.publish import Duplicate, QueueTooLong, QueueUnavailable, enqueue, enqueue_many, status_of
from app.worker.serializer import InvalidArguments
from app.worker.task import AppTask

pytestmark = pytest.mark.anyio


@pytest.fixture(name="broker")
def broker_fixture() -> Iterator[Any]:
    """Give the Redis client of the broker, whose database is empty before and after the test."""
    with redis.Redis.from_url(celery_settings.broker_url.get_secret_value(), decode_responses=True) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture(name="db")
async def db_fixture() -> AsyncIterator[AsyncSession]:
    """Give a session as a route gets it."""
    async with contextlib.asynccontextmanager(get_db)() as session:
        yield session


def _queued(broker: Any) -> list[str]:
    """Return the ids of the queued tasks, oldest first."""
    return [json.loads(text)["headers"]["id"] for text in reversed(broker.lrange("high", 0, -1))]


async def _rows() -> int:
    async with session_scope() as db:
        return int(await db.scalar(select(func.count()).select_from(OnceKey)) or 0)


async def test_a_task_leaves_when_the_transaction_is_committed(broker: Any, db: AsyncSession) -> None:
    assert await once(db, "data")
    first = await enqueue(process_task.s({"a": 1}), after_commit=db)
    second = await enqueue(process_task.s({"a": 2}), after_commit=db)
    await db.flush()
    assert _queued(broker) == []
    await db.commit()
    assert _queued(broker) == [first.id, second.id]
    status = await status_of(first.id)
    assert status is not None
    assert status.status == "PENDING"
    await db.commit()
    assert _queued(broker) == [first.id, second.id]
    third = await enqueue(process_task.s({}), after_commit=db)
    await db.commit()
    assert _queued(broker) == [first.id, second.id, third.id]


async def test_many_tasks_leave_in_one_step_when_the_transaction_is_committed(broker: Any, db: AsyncSession) -> None:
    signatures = [process_task.s({"number": number}) for number in range(30)]
    await enqueue_many(signatures, after_commit=db)
    await db.rollback()
    results = await enqueue_many(signatures, after_commit=db)
    assert _queued(broker) == []
    broker.config_resetstat()
    await db.commit()
    assert _queued(broker) == [result.id for result in results]
    assert broker.info("commandstats")["cmdstat_eval"]["calls"] == 1
    status = await status_of(results[-1].id)
    assert status is not None
    assert status.status == "PENDING"


@pytest.mark.parametrize("end", ["rollback", "close", "invalidate", "exception"])
async def test_a_task_never_leaves_when_the_transaction_is_rolled_back(broker: Any, end: str) -> None:
    with contextlib.suppress(LookupError):
        async with session_scope() as db:
            await enqueue(process_task.s({}), after_commit=db)
            assert await once(db, "data")
            await enqueue(process_task.s({}), after_commit=db)
            if end == "exception":
                raise LookupError
            await getattr(db, end)()
            assert await once(db, "more")
            await db.commit()
    assert _queued(broker) == []


async def test_a_rollback_before_the_first_query_drops_the_task(broker: Any, db: AsyncSession) -> None:
    await enqueue(process_task.s({}), after_commit=db)
    await db.rollback()
    assert await once(db, "data")
    await db.commit()
    assert _queued(broker) == []


async def test_a_savepoint_decides_about_its_own_tasks(broker: Any, db: AsyncSession) -> None:
    before = await enqueue(process_task.s({}), after_commit=db)
    with contextlib.suppress(LookupError):
        async with db.begin_nested():
            await enqueue(process_task.s({}), after_commit=db)
            async with db.begin_nested():
                # Released, but inside one that is rolled back.
                await enqueue(process_task.s({}), after_commit=db)
            raise LookupError
    async with db.begin_nested():
        released = await enqueue(process_task.s({}), after_commit=db)
    after = await enqueue(process_task.s({}), after_commit=db)
    assert _queued(broker) == [], "the release of a savepoint is no commit"
    await db.commit()
    assert _queued(broker) == [before.id, released.id, after.id]


async def test_a_released_savepoint_in_a_rolled_back_transaction_sends_nothing(broker: Any, db: AsyncSession) -> None:
    async with db.begin_nested():
        await enqueue(process_task.s({}), after_commit=db)
    await db.rollback()
    await db.commit()
    assert _queued(broker) == []


async def test_a_commit_that_fails_sends_nothing(broker: Any, db: AsyncSession) -> None:
    async with session_scope() as other:
        assert await once(other, "taken")
    row = (await db.scalars(select(OnceKey))).one()
    db.expunge(row)
    await enqueue(process_task.s({}), after_commit=db)
    db.add(OnceKey(key_hash=row.key_hash, expires_at=row.expires_at))
    with pytest.raises(IntegrityError):
        await db.commit()
    await db.rollback()
    await db.commit()
    assert _queued(broker) == []


async def test_a_commit_that_the_database_refuses_sends_nothing(
    broker: Any, db: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(process_task.s({}), after_commit=db)
    assert await once(db, "data")
    dialect = db.get_bind().dialect
    with monkeypatch.context() as patched:

        def refuse(_: object) -> None:
            raise ConnectionResetError("the connection was lost")

        patched.setattr(dialect, "do_commit", refuse)
        with pytest.raises(ConnectionResetError):
            await db.commit()
    await db.rollback()
    assert await once(db, "more")
    await db.commit()
    assert _queued(broker) == []


async def test_a_begin_block_sends_at_its_end(broker: Any, db: AsyncSession) -> None:
    async with db.begin():
        queued = await enqueue(process_task.s({}), after_commit=db)
        assert _queued(broker) == []
    assert _queued(broker) == [queued.id]


async def test_the_session_has_no_connection_while_redis_is_awaited(broker: Any, db: AsyncSession) -> None:
    seen: list[bool] = []

    async def look() -> None:
        seen.append(db.in_transaction())

    await db.execute(text("SELECT 1"))
    after_commit.hold(db, look)
    await db.commit()
    assert seen == [False]


async def test_a_caller_that_gives_up_during_the_commit_loses_no_task(broker: Any, db: AsyncSession) -> None:
    started, may_go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def send() -> None:
        started.set()
        await may_go.wait()
        done.set()

    assert await once(db, "data")
    after_commit.hold(db, send)
    committing = asyncio.create_task(db.commit())
    await started.wait()
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    may_go.set()
    async with asyncio.timeout(5):
        await done.wait()
    assert await _rows() == 1


async def test_redis_that_refuses_after_the_commit_is_logged_and_not_raised(
    broker: Any, db: AsyncSession, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    queued = await enqueue(process_task.s({}), after_commit=db)
    assert await once(db, "data")
    broker.set("high", "no list")
    await db.commit()
    assert await _rows() == 1
    assert db.is_active
    out = capfd.readouterr().out + caplog.text
    assert "task_not_queued_after_commit" in out
    assert queued.id in out


@pytest.mark.parametrize("reason", ["QueueTooLong", "ResponseError"])
@pytest.mark.parametrize("number", [1, 2])
async def test_a_task_that_is_refused_after_the_commit_is_logged_and_leaves_no_record_and_no_job(
    reason: str,
    number: int,
    broker: Any,
    db: AsyncSession,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    if reason == "QueueTooLong":
        monkeypatch.setattr(celery_settings, "max_queue_depth", 2)
    owner = f"refused-{reason}-{number}"
    if number == 1:
        queued = [await enqueue(process_task.s({}), owner, after_commit=db)]
    else:
        queued = await enqueue_many([process_task.s({})] * number, owner, after_commit=db)
    if reason == "QueueTooLong":
        broker.lpush("high", "a", "b")
    else:
        broker.set(f"high{messages.keys().ending(owners.PRIORITY)}", "no list")
    await db.commit()
    out = capfd.readouterr().out + caplog.text
    for result in queued:
        (line,) = [one for one in out.splitlines() if "task_not_queued_after_commit" in one and result.id in one]
        assert process_task.name in line
        assert reason in line
        assert history.read(result.id) is None
        assert await status_of(result.id) is None
    assert results_client().zcard(job_limit.jobs_key(owner)) == 0


async def test_a_refusal_before_the_commit_keeps_no_idempotency_key(
    broker: Any, db: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(celery_settings, "max_queue_depth", 1)
        broker.lpush("high", "a")
        await once(db, "of the caller, which commits nevertheless")
        with pytest.raises(QueueTooLong):
            await enqueue(process_task.s({}), after_commit=db, idempotency_key="refused")
        await db.commit()
    assert not await once(db, "of the caller, which commits nevertheless")
    broker.delete("high")
    result = await enqueue(process_task.s({}), after_commit=db, idempotency_key="refused")
    await db.commit()
    assert _queued(broker) == [result.id]


async def test_a_unique_task_that_is_refused_after_the_commit_may_be_queued_again(
    broker: Any, db: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> None:
        """Do nothing."""

    monkeypatch.setattr(celery_settings, "max_queue_depth", 1)
    alone: Any = celery_app.task(name="test.alone", unique=Unique(), queue_name="high")(nothing)
    try:
        await enqueue(alone.s(), after_commit=db)
        broker.lpush("high", "a")
        await db.commit()
        broker.delete("high")
        again = await enqueue(alone.s())
        assert not isinstance(again, Duplicate)
        assert _queued(broker) == [again.id]
    finally:
        celery_app.tasks.unregister(alone)


async def test_a_full_queue_refuses_before_the_commit(
    broker: Any, db: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "max_queue_depth", 1)
    first = await enqueue(process_task.s({}), after_commit=db, idempotency_key="first")
    await db.commit()
    with pytest.raises(QueueTooLong):
        await enqueue(process_task.s({}), after_commit=db)
    with pytest.raises(QueueTooLong):
        await enqueue_many([process_task.s({}).set(queue="long"), process_task.s({})], after_commit=db)
    await enqueue(process_task.s({}), after_commit=db, outbox=True)
    again = await enqueue(process_task.s({}), after_commit=db, idempotency_key="first")
    assert again.id == first.id, "nothing is queued"
    await db.rollback()


async def test_many_tasks_are_held_or_none(broker: Any, db: AsyncSession) -> None:
    with celery_app.connection_for_write() as connection:
        own = process_task.s({}).set(connection=connection)
        with pytest.raises(ValueError, match="connection, producer or publisher"):
            await enqueue_many([process_task.s({}), own], after_commit=db)
        with pytest.raises(ValueError, match="connection, producer or publisher"):
            await enqueue(own, after_commit=db)
    await db.commit()
    assert _queued(broker) == []


class _Silent(AppTask):
    def apply_async(self, *_: Any, **__: Any) -> Any:
        return None


async def test_a_task_that_makes_no_message_is_an_error(broker: Any, db: AsyncSession) -> None:
    def nothing() -> None:
        """Do nothing."""

    silent: Any = celery_app.task(name="test.silent", base=_Silent)(nothing)
    try:
        with pytest.raises(RuntimeError, match=r"test\.silent"):
            await enqueue_many([process_task.s({}), silent.s()], after_commit=db)
    finally:
        celery_app.tasks.unregister(silent)
    await db.commit()
    assert _queued(broker) == []


async def test_redis_that_refuses_before_the_commit_is_an_error(
    broker: Any, db: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = broker.info("server")["process_id"]
    monkeypatch.setattr(celery_settings, "publish_timeout", 0.3)
    os.kill(server, signal.SIGSTOP)
    try:
        with pytest.raises(QueueUnavailable):
            await enqueue(process_task.s({}), after_commit=db)
    finally:
        os.kill(server, signal.SIGCONT)
    await db.commit()
    assert _queued(broker) == []


async def test_what_no_message_can_contain_is_refused_before_the_commit(broker: Any, db: AsyncSession) -> None:
    for bad in ({"__type__": "x"}, {"deep": object()}, {"large": "x" * 60_000}):
        with pytest.raises(InvalidArguments):
            await enqueue(process_task.s(bad), after_commit=db)
    for workflow in (chain(process_task.s({}), process_task.si({})), group(process_task.s({}))):
        with pytest.raises(ValueError, match="single task"):
            await enqueue(workflow, after_commit=db)
    with pytest.raises(ValueError, match="after_commit=session"):
        await enqueue(process_task.s({}), outbox=True)
    await db.commit()
    assert _queued(broker) == []


async def test_a_transaction_holds_a_bounded_number_of_tasks(broker: Any, db: AsyncSession, monkeypatch: Any) -> None:
    monkeypatch.setattr(after_commit, "MAX_HELD", 2)
    for _ in range(2):
        await enqueue(process_task.s({}), after_commit=db)
    with pytest.raises(ValueError, match="at most 2 calls of enqueue"):
        await enqueue(process_task.s({}), after_commit=db)
    await db.commit()
    assert len(_queued(broker)) == 2


async def test_an_owners_limit_is_checked_before_the_commit(
    broker: Any, db: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 1)
    owner = "user-of-a-session"
    backend: Any = celery_app.backend
    backend.client.delete(job_limit.jobs_key(owner))
    queued = await enqueue(process_task.s({}), owner, after_commit=db)
    with pytest.raises(TooManyJobs):
        await enqueue(process_task.s({}), owner, after_commit=db)
    await db.commit()
    status = await status_of(queued.id)
    assert status is not None
    assert status.owner == owner


async def test_options_travel_with_the_task(broker: Any, db: AsyncSession) -> None:
    await enqueue(process_task.s({}).set(queue="long", headers={"tenant": "a"}, task_id="chosen"), after_commit=db)
    await db.commit()
    (message,) = map(json.loads, broker.lrange("long", 0, -1))
    assert message["headers"]["tenant"] == "a"
    assert message["headers"]["id"] == "chosen"


async def test_sent_events_do_not_leave_before_the_commit(
    broker: Any, db: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(celery_app.conf, "task_send_sent_event", True)
    queued = await enqueue(process_task.s({}), after_commit=db)
    assert broker.keys("*") == []
    amqp: Any = celery_app.amqp
    assert not amqp._event_dispatcher._outbound_buffer, "Celery keeps an event that it cannot send"
    await db.commit()
    assert _queued(broker) == [queued.id]
