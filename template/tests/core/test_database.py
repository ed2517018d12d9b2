"""Database sessions in event loops, threads and forks."""

import asyncio
import multiprocessing
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.core import database
from app.core.config.database import database_settings
from app.core.database import close_database, get_db, open_database, ping_database, session_scope
from app.models import UtcDateTime

CREATE = "CREATE TABLE IF NOT EXISTS probe (number INTEGER)"


@pytest.fixture
async def probe() -> Any:
    """Create a table and drop it after the test."""
    async with session_scope() as db:
        await db.execute(text(CREATE))
    yield
    async with session_scope() as db:
        await db.execute(text("DROP TABLE probe"))


async def _count() -> int:
    async with session_scope() as db:
        return int(await db.scalar(text("SELECT count(*) FROM probe")) or 0)


async def test_a_session_scope_commits_or_rolls_back(probe: None) -> None:
    async with session_scope() as db:
        await db.execute(text("INSERT INTO probe VALUES (1)"))
    assert await _count() == 1

    async def fail() -> None:
        async with session_scope() as db:
            await db.execute(text("INSERT INTO probe VALUES (2)"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await _count() == 1


async def test_get_db_rolls_back_uncommitted_changes(probe: None) -> None:
    async for db in get_db():
        await db.execute(text("INSERT INTO probe VALUES (1)"))
    assert await _count() == 0
    async for db in get_db():
        await db.execute(text("INSERT INTO probe VALUES (1)"))
        await db.commit()
    assert await _count() == 1


async def test_an_open_database_keeps_its_connections() -> None:
    await open_database()
    engine = database._engine()
    assert not isinstance(engine.pool, NullPool)
    await open_database()
    assert database._engine() is engine
    await asyncio.gather(*(ping_database() for _ in range(5)))
    await close_database()
    assert isinstance(database._engine().pool, NullPool)


async def _use(number: int) -> int:
    async for db in get_db():
        # Returns inside the loop, as the examples in the documentation do.
        return int(await db.scalar(text(f"SELECT {number}")) or 0)
    raise AssertionError("get_db yielded nothing")


def test_engines_of_ended_event_loops_are_released() -> None:
    before = len(database._engines)
    assert [asyncio.run(_use(number)) for number in range(200)] == list(range(200))
    assert len(database._engines) <= before + 1, "engines of ended loops are not released"


def test_event_loops_in_several_threads_work_at_once() -> None:
    results: list[Any] = []

    async def several() -> list[int]:
        return await asyncio.gather(*(_use(number) for number in range(5)))

    def run() -> None:
        try:
            results.append(asyncio.run(several()))
        except Exception as error:  # noqa: BLE001
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [[0, 1, 2, 3, 4]] * 6


def _in_child(queue: Any) -> None:
    queue.put(asyncio.run(_use(42)))


async def _fork_while_open() -> int:
    await open_database()
    await asyncio.gather(*(ping_database() for _ in range(2)))
    engine = database._engine()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_fork, args=(queue, id(engine)))
    child.start()
    answer = await asyncio.to_thread(queue.get, True, 30)
    await asyncio.to_thread(child.join, 30)
    # The parent's pooled connections still work.
    await asyncio.gather(*(ping_database() for _ in range(5)))
    await close_database()
    return int(answer)


def _in_fork(queue: Any, parents_engine: int) -> None:
    def run() -> None:
        async def use() -> int:
            await open_database()
            assert id(database._engine()) != parents_engine
            number = await _use(42)
            await close_database()
            return number

        queue.put(asyncio.run(use()))

    # In a thread, because the fork's main thread inherits the state of a running loop.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_opens_its_own_connections() -> None:
    assert asyncio.run(_fork_while_open()) == 42


async def test_all_parallel_writers_succeed(probe: None) -> None:
    await open_database()

    async def write(number: int) -> None:
        async with session_scope() as db:
            await db.execute(text("INSERT INTO probe VALUES (:number)"), {"number": number})

    await asyncio.gather(*(write(number) for number in range(30)))
    assert await _count() == 30
    await close_database()


async def test_sqlite_enforces_foreign_keys_and_waits_for_locks() -> None:
    if database_settings.sqlalchemy_url.get_backend_name() != "sqlite":
        pytest.skip("another database than SQLite")
    async with session_scope() as db:
        pragmas = [await db.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys", "busy_timeout")]
    assert pragmas == ["wal", 1, 10000]


async def test_database_errors_do_not_contain_values() -> None:
    async with session_scope() as db:
        with pytest.raises(DBAPIError) as raised:
            await db.execute(text("SELECT :value FROM no_such_table"), {"value": "swordfish"})
    assert "no_such_table" in str(raised.value)
    assert "swordfish" not in str(raised.value)


@pytest.mark.parametrize("dialect", [postgresql.dialect(), mysql.dialect(), sqlite.dialect()])  # type: ignore[no-untyped-call]
def test_times_are_stored_in_utc_on_every_database(dialect: Any) -> None:
    kind = UtcDateTime()
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    later = noon.astimezone(timezone(timedelta(hours=5)))
    stored = {kind.process_bind_param(value, dialect) for value in (noon, later, noon.replace(tzinfo=None))}
    assert len(stored) == 1
    assert kind.process_result_value(stored.pop(), dialect) == noon
    assert kind.process_bind_param(None, dialect) is None
    assert kind.process_result_value(None, dialect) is None
