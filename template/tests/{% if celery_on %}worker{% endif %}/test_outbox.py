"""`enqueue(…, after_commit=session, outbox=True)`: the row is committed with the data, and a relay publishes it once, in order."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import func, insert, select

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.core.database import session_scope
from app.models.tasks import OutboxMessage
from app.tasks.process_task import process_task
from app.worker import job_limit, outbox
from app.worker.job_limit import TooManyJobs
from app.worker.once import once
from app.worker.publish import QueueUnavailable, cancel, enqueue, status_of
from devtools.servers import free_port
from tests import ROOT

pytestmark = pytest.mark.anyio


@pytest.fixture(name="broker")
def broker_fixture() -> Iterator[Any]:
    """Give the Redis client of the broker, whose database is empty before and after the test."""
    with redis.Redis.from_url(celery_settings.broker_url.get_secret_value(), decode_responses=True) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture(name="no_relay")
def no_relay_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no commit wake a relay, as if the process had died after it."""

    async def nothing() -> None:
        pass

    monkeypatch.setattr(outbox, "kick", nothing)


def _queued(broker: Any, queue: str = "high") -> list[str]:
    """Return the ids of the queued tasks, oldest first."""
    return [json.loads(text)["headers"]["id"] for text in reversed(broker.lrange(queue, 0, -1))]


async def _add(number: int = 1, **data: Any) -> list[str]:
    """Commit that many tasks to the outbox and return their ids."""
    async with session_scope() as db:
        results = [await enqueue(process_task.s(data), after_commit=db, outbox=True) for _ in range(number)]
    return [result.id for result in results]


async def _rows(*, aside: bool = False) -> list[str]:
    """Return the ids of the tasks in the outbox, or of those that were set aside."""
    async with session_scope() as db:
        query = select(OutboxMessage.task_id).order_by(OutboxMessage.id)
        is_aside = OutboxMessage.failed_at.is_not(None)
        return list(await db.scalars(query.where(is_aside if aside else ~is_aside)))


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for is in Redis
            await asyncio.sleep(0.01)


async def test_a_commit_publishes_its_tasks_in_order(broker: Any) -> None:
    ids = await _add(5)
    assert _queued(broker) == ids
    assert await _rows() == []


async def test_the_message_is_the_one_that_celery_publishes(broker: Any) -> None:
    (task_id,) = await _add(a="ä")
    (text,) = broker.lrange("high", 0, -1)
    broker.flushdb()
    process_task.apply_async(({"a": "ä"},), task_id=task_id)
    expected, message = json.loads(broker.lrange("high", 0, -1)[0]), json.loads(text)
    for one in (expected, message):
        del one["headers"]["published_at"], one["properties"]["delivery_tag"]
    assert message == expected


async def test_a_rolled_back_transaction_or_savepoint_publishes_nothing(broker: Any) -> None:
    async with session_scope() as db:
        await enqueue(process_task.s({}), after_commit=db, outbox=True)
        await db.rollback()
        nested = await db.begin_nested()
        await enqueue(process_task.s({}), after_commit=db, outbox=True)
        await nested.rollback()
        kept = await enqueue(process_task.s({}), after_commit=db, outbox=True)
    assert _queued(broker) == [kept.id]


async def test_nothing_is_published_before_the_commit(broker: Any) -> None:
    async with session_scope() as db:
        await enqueue(process_task.s({}), after_commit=db, outbox=True)
        assert await outbox.relay() == 0
        assert _queued(broker) == []
    assert len(_queued(broker)) == 1


def test_tasks_wait_while_redis_is_down(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        for name in ("broker_url", "result_backend"):
            patched.setattr(celery_settings, name, SecretStr(f"redis://127.0.0.1:{free_port()}/1"))
        ids = [task_id for _ in range(3) for task_id in asyncio.run(_add())]
        with pytest.raises(QueueUnavailable):
            asyncio.run(outbox.relay())
    assert asyncio.run(_rows()) == ids
    assert asyncio.run(outbox.relay()) == 3
    assert _queued(broker) == ids
    assert asyncio.run(_rows()) == []


async def test_tasks_wait_while_redis_is_full(broker: Any) -> None:
    broker.config_set("maxmemory", broker.info("memory")["used_memory"] // 2)
    try:
        ids = await _add(2)
        with pytest.raises(QueueUnavailable):
            await outbox.relay()
    finally:
        broker.config_set("maxmemory", 0)
    assert _queued(broker) == []
    await outbox.relay()
    assert _queued(broker) == ids


async def test_tasks_wait_while_redis_is_frozen(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_settings, "publish_timeout", 0.3)
    server = broker.info("server")["process_id"]
    os.kill(server, signal.SIGSTOP)
    try:
        ids = await _add(2)
    finally:
        os.kill(server, signal.SIGCONT)
    await outbox.relay()
    # What was sent to the frozen server may run when it continues: it is there once nevertheless.
    assert _queued(broker) == ids
    assert await _rows() == []


async def test_a_process_that_stops_lets_the_pass_of_its_relay_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that is cancelled may outlive the event loop."""
    passes = []

    async def slow() -> int:
        passes.append("begun")
        for _ in range(20):
            await asyncio.sleep(0)
        passes.append("ended")
        return 0

    monkeypatch.setattr(outbox, "relay", slow)
    async with outbox.running():
        await asyncio.sleep(0)
    assert passes == ["begun", "ended"]


async def test_the_relay_of_a_process_publishes_what_others_left(
    broker: Any, monkeypatch: pytest.MonkeyPatch, no_relay: None
) -> None:
    left = await _add(3)
    monkeypatch.setattr(outbox, "INTERVAL", 0.05)
    async with outbox.running():
        await _until(lambda: _queued(broker) == left)
        later = await _add(2)
        await _until(lambda: _queued(broker) == left + later)


async def test_a_commit_wakes_the_relay_of_its_process(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "INTERVAL", 3600)
    async with outbox.running():
        for _ in range(3):
            ids = await _add()
            assert _queued(broker)[-1:] == ids


async def test_a_running_relay_survives_outages(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "INTERVAL", 0.05)
    log = Mock()
    monkeypatch.setattr(outbox, "_logger", log)
    passes = 0
    relay = outbox.relay

    async def counted() -> int:
        nonlocal passes
        passes += 1
        return await relay()

    monkeypatch.setattr(outbox, "relay", counted)
    async with outbox.running():
        await _until(lambda: passes)
        broker.config_set("maxmemory", broker.info("memory")["used_memory"] // 2)
        try:
            ids = await _add(2)
            before = passes
            await _until(lambda: passes > before + 3)
        finally:
            broker.config_set("maxmemory", 0)
        await _until(lambda: _queued(broker) == ids)
        before = passes
        await _until(lambda: passes > before + 1)
    assert [line.args[0] for line in log.warning.mock_calls] == ["outbox_blocked"]
    assert [line.args[0] for line in log.info.mock_calls] == ["outbox_continues"]


async def test_many_rows_are_published_in_order(broker: Any, no_relay: None) -> None:
    ids = await _add(outbox.BATCH * 2 + 1)
    assert await outbox.relay(most=1) == outbox.BATCH
    assert _queued(broker) == ids[: outbox.BATCH]
    assert await outbox.relay() == outbox.BATCH + 1
    assert _queued(broker) == ids


async def test_relays_at_the_same_time_publish_each_row_once_and_in_order(broker: Any, no_relay: None) -> None:
    ids = await _add(outbox.BATCH * 3)
    await asyncio.gather(*(outbox.relay() for _ in range(4)))
    assert _queued(broker) == ids
    assert await _rows() == []


async def test_a_relay_that_was_frozen_publishes_nothing_again(
    broker: Any, no_relay: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await _add(3)
    frozen, may_go = asyncio.Event(), asyncio.Event()
    publish = outbox._publish

    async def freezing(*args: Any) -> Any:
        frozen.set()
        await may_go.wait()
        return await publish(*args)

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "_publish", freezing)
        stuck = asyncio.create_task(outbox.relay())
        await frozen.wait()
    later = await _add(1)
    assert await outbox.relay() == 4, "a frozen relay blocks no other"
    broker.rpop("high")
    may_go.set()
    await stuck
    assert _queued(broker) == [*ids[1:], *later], "a worker has taken the first meanwhile"


async def test_a_row_that_cannot_be_published_does_not_block_the_others(broker: Any, no_relay: None) -> None:
    first, wrong_id, no_queue = await _add(3)
    async with session_scope() as db:
        query = select(OutboxMessage.id).where(OutboxMessage.task_id == wrong_id)
        (await db.get_one(OutboxMessage, await db.scalar(query))).task_id = "another"
        query = select(OutboxMessage.id).where(OutboxMessage.task_id == no_queue)
        (await db.get_one(OutboxMessage, await db.scalar(query))).queue = "a string"
        row = {"task_id": "broken", "task": "x", "queue": "high", "created_at": datetime.now(UTC)}
        for text in ("{", "[]", "{}", '{"headers": null}'):
            await db.execute(insert(OutboxMessage).values(message=text, **row))
    broker.set("a string", "x")
    (last,) = await _add()
    await outbox.relay()
    assert _queued(broker) == [first, last]
    assert await _rows() == []
    assert await _rows(aside=True) == ["another", no_queue, *["broken"] * 4]
    status = await status_of(no_queue)
    # It was recorded before Redis refused it.
    assert status is not None
    broken = await status_of("broken")
    assert broken is not None
    assert (broken.status, (broken.error or {})["type"]) == ("FAILURE", "NotPublished")
    assert await outbox.relay() == 0


async def test_a_task_in_the_outbox_is_pending_and_can_be_cancelled(broker: Any, no_relay: None) -> None:
    (task_id,) = await _add()
    status = await status_of(task_id)
    assert status is not None
    assert status.status == "PENDING"
    cancelled = await cancel(task_id)
    assert cancelled is not None
    assert cancelled.status == "REVOKED"
    await outbox.relay()
    status = await status_of(task_id)
    assert status is not None
    assert status.status == "REVOKED"
    assert await status_of("unknown") is None
    assert await cancel("unknown") is None


async def test_the_owner_of_an_outbox_task_may_have_more_jobs_but_they_count(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 1)
    backend: Any = celery_app.backend
    backend.client.delete(job_limit.jobs_key("outbox-owner"))
    async with session_scope() as db:
        for _ in range(2):
            queued = await enqueue(process_task.s({}), "outbox-owner", after_commit=db, outbox=True)
    status = await status_of(queued.id)
    assert status is not None
    assert status.owner == "outbox-owner"
    with pytest.raises(TooManyJobs):
        await enqueue(process_task.s({}), "outbox-owner")


# --- kill -9 ---

_DIE = "import os, signal\ndie = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
_RELAY = """
import asyncio
from sqlalchemy import Engine, event
from app.core.database import session_scope
from app.tasks.process_task import process_task
from app.worker import outbox
from app.worker.publish import enqueue
execute = outbox.execute
async def run():
    try:
        await outbox.relay()
    finally:
        die()
"""
STEPS = {
    "before it has read": "event.listen(Engine, 'before_cursor_execute', die)",
    "before it publishes": "outbox.execute = die",
    "after it has published": """
async def then_die(commands):
    await execute(commands)
    die()
outbox.execute = then_die
""",
    "before it deletes the rows": """
event.listen(Engine, 'before_cursor_execute', lambda *args: args[2].startswith('DELETE') and die())
""",
    "before it commits": """
event.listen(Engine, 'after_cursor_execute', lambda *args: args[2].startswith('DELETE') and die())
""",
    "after everything": "",
}


def _run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DIE + _RELAY + code],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.processes
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_relay_loses_and_doubles_nothing(broker: Any, no_relay: None, step: str) -> None:
    ids = asyncio.run(_add(3))
    _run(STEPS[step] + "\nasyncio.run(run())")
    later = asyncio.run(_add(1))
    asyncio.run(outbox.relay())
    assert _queued(broker) == ids + later
    assert asyncio.run(_rows()) == []


_COMMIT = """
async def commit():
    async with session_scope() as db:
        await enqueue(process_task.s({}).set(task_id="of-a-killed-process"), after_commit=db, outbox=True)
        %s
asyncio.run(commit())
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("step", "is_queued"),
    [
        ("die()", False),
        ("event.listen(Engine, 'commit', die)", False),
        # The commit is done, and no relay has seen it.
        ("from app.worker import after_commit; after_commit._send = die", True),
    ],
    ids=["before the commit", "at the commit", "after the commit"],
)
def test_a_process_that_is_killed_queues_what_it_committed(broker: Any, step: str, is_queued: bool) -> None:
    _run(_COMMIT % step)
    assert _queued(broker) == []
    asyncio.run(outbox.relay())
    assert _queued(broker) == (["of-a-killed-process"] if is_queued else [])


async def test_the_data_and_the_task_are_committed_together(broker: Any, no_relay: None) -> None:
    async with session_scope() as db:
        assert await once(db, "data")
        await enqueue(process_task.s({}), after_commit=db, outbox=True)
        count = select(func.count()).select_from(OutboxMessage)
        assert await db.scalar(count) == 1
        async with session_scope() as other:
            assert await other.scalar(count) == 0
    assert len(await _rows()) == 1
