"""`once(session, key)`: the effect and the fact that it happened are committed together."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError

from app.core.database import session_scope
from app.models.tasks import OnceKey
from app.worker import once as once_module
from app.worker.once import once, trim

pytestmark = pytest.mark.anyio


async def _done(key: str) -> bool:
    async with session_scope() as db:
        return await once(db, key)


async def _keys() -> int:
    async with session_scope() as db:
        return int(await db.scalar(select(func.count()).select_from(OnceKey)) or 0)


async def test_a_second_delivery_sees_that_it_was_done() -> None:
    assert await _done("invoice 17")
    assert not await _done("invoice 17")
    assert await _done("invoice 18")


async def test_one_transaction_does_it_once_too() -> None:
    async with session_scope() as db:
        assert [await once(db, "invoice 17") for _ in range(2)] == [True, False]


async def test_a_rollback_undoes_the_fact_too() -> None:
    async with session_scope() as db:
        assert await once(db, "invoice 17")
        await db.rollback()
    async with session_scope() as db:
        nested = await db.begin_nested()
        assert await once(db, "invoice 17")
        await nested.rollback()
    assert await _done("invoice 17")


@pytest.mark.parametrize("first_commits", [True, False], ids=["commits", "rolls back"])
async def test_of_two_at_once_the_second_waits_for_the_first(first_commits: bool) -> None:
    effects: list[str] = []
    started, may_end = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with session_scope() as db:
            assert await once(db, "invoice 17")
            started.set()
            await may_end.wait()
            if not first_commits:
                await db.rollback()
                return
            effects.append("first")

    async def second() -> None:
        await started.wait()
        async with session_scope() as db:
            # A transaction that has read before the other one committed.
            await db.scalar(select(func.count()).select_from(OnceKey))
            asyncio.get_running_loop().call_later(0.1, may_end.set)
            if await once(db, "invoice 17"):
                effects.append("second")

    await asyncio.gather(first(), second())
    assert effects == (["first"] if first_commits else ["second"])
    assert await _keys() == 1


async def test_of_many_at_once_one_does_it() -> None:
    async def attempt() -> bool:
        try:
            return await _done("invoice 17")
        except DBAPIError:
            # Refused, as the loser of a deadlock is.
            return False

    assert sum(await asyncio.gather(*(attempt() for _ in range(20)))) == 1
    assert await _keys() == 1


async def test_keys_that_differ_by_case_or_accent_are_different() -> None:
    assert [await _done(key) for key in ("é", "e", "E", "e ", "é\x00", "\ud800")] == [True] * 6


@pytest.mark.parametrize("key", ["", "x" * 1001])
async def test_a_key_of_the_wrong_length_is_refused(key: str) -> None:
    async with session_scope() as db:
        with pytest.raises(ValueError, match="1 to 1000"):
            await once(db, key)


async def test_an_expired_key_is_free_again_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await _done("old")
    assert await _done("new")
    async with session_scope() as db:
        await db.execute(update(OnceKey).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert await _done("new")
    assert not await _done("new")
    assert await _keys() == 2
    monkeypatch.setattr(once_module, "_TRIMMED_AT_ONCE", 1)
    async with session_scope() as db:
        assert await trim(db) == 1
        assert await trim(db) == 0
    assert await _keys() == 1
