"""Deletion of expired rows."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import UpdateBase, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.celery import celery_app
from app.core.database import matched_rows, session_scope
from app.features.accounts.models import Session, User
from app.features.cleanup.service import delete_expired, expiring_tables
from app.models import Base
from app.tasks.cleanup_task import cleanup_old_sessions

SESSIONS = Base.metadata.tables["sessions"]


async def _add_sessions(*lifetimes: timedelta) -> None:
    async with session_scope() as db:
        user = User(email="ada@example.com", password_hash="x")
        db.add(user)
        await db.flush()
        now = datetime.now(UTC)
        db.add_all(
            Session(user_id=user.id, token_hash=str(number), expires_at=now + lifetime)
            for number, lifetime in enumerate(lifetimes)
        )


async def _left() -> int:
    async with session_scope() as db:
        return await db.scalar(select(func.count()).select_from(Session)) or 0


@pytest.mark.anyio
async def test_expired_rows_are_deleted_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.features.cleanup.service.BATCH", 10)
    await _add_sessions(*[timedelta(seconds=-1)] * 35, *[timedelta(minutes=1)] * 3)
    transactions = 0

    def counted() -> object:
        nonlocal transactions
        transactions += 1
        return session_scope()

    monkeypatch.setattr("app.features.cleanup.service.session_scope", counted)
    assert await delete_expired(SESSIONS) == 35
    assert (await _left(), transactions) == (3, 4)
    assert await delete_expired(SESSIONS) == 0


@pytest.mark.anyio
async def test_a_login_that_is_refreshed_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    await _add_sessions(timedelta(seconds=-1))

    async def refreshed_first(db: AsyncSession, statement: UpdateBase) -> int:
        """Simulate a request between the query and the deletion."""
        await db.execute(update(Session).values(expires_at=datetime.now(UTC) + timedelta(days=1)))
        return await matched_rows(db, statement)

    monkeypatch.setattr("app.features.cleanup.service.matched_rows", refreshed_first)
    assert await delete_expired(SESSIONS) == 0
    assert await _left() == 1


def test_the_task_covers_every_table_with_expiring_rows() -> None:
    tables = {table.name for table in expiring_tables()}
    assert "sessions" in tables
    assert set(cleanup_old_sessions.apply().get()) == tables
    for table in expiring_tables():
        assert table.c.expires_at.index, f"{table.name} would be scanned completely every hour"


def test_the_cleanup_is_scheduled_every_hour_and_expires_before_the_next() -> None:
    entry = celery_app.conf.beat_schedule["cleanup-old-sessions"]
    assert entry["task"] == cleanup_old_sessions.name == "cleanup_old_sessions"
    assert entry["options"]["expires"] < entry["schedule"] == 3600
