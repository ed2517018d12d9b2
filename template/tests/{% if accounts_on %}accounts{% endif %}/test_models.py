"""The tables of accounts, on the real database."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

from app.core.database import session_scope
from app.features.accounts.models import Session, User
from app.features.accounts.service import find_user


async def _add_user(**values: object) -> int:
    async with session_scope() as db:
        user = User(email="ada@example.com", password_hash="x", **values)
        db.add(user)
        await db.flush()
        return user.id


async def test_moments_come_back_in_utc_to_the_microsecond() -> None:
    moment = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
    user_id = await _add_user(last_activity=moment)
    async with session_scope() as db:
        user = (await db.scalars(select(User).where(User.last_activity == moment.replace(tzinfo=None)))).one()
    assert user.id == user_id
    assert user.last_activity == moment
    assert user.last_activity.tzinfo is UTC
    assert abs(datetime.now(UTC) - user.created_at) < timedelta(minutes=1)
    assert user.is_active is True


async def test_an_address_has_one_account() -> None:
    await _add_user()
    with pytest.raises(IntegrityError):
        await _add_user()


@pytest.mark.parametrize("other", ["ad\u00e1@example.com", "ada@ex\u00e1mple.com", "\u0101da@example.com"])
async def test_addresses_that_differ_by_an_accent_are_two(other: str) -> None:
    """MySQL would mail the code for one account to whoever reads the other address."""
    user_id = await _add_user()
    async with session_scope() as db:
        assert await find_user(db, other) is None
        added = User(email=other, password_hash="x")
        db.add(added)
        await db.flush()
        found = [await find_user(db, email) for email in ("ada@example.com", other)]
    assert [user.id for user in found if user] == [user_id, added.id]


async def test_a_users_sessions_go_with_the_user() -> None:
    user_id = await _add_user()
    async with session_scope() as db:
        db.add(Session(user_id=user_id, token_hash="a" * 64, expires_at=datetime.now(UTC)))
    async with session_scope() as db:
        await db.execute(delete(User))
        assert await db.scalar(select(func.count()).select_from(Session)) == 0


async def test_a_session_needs_its_user() -> None:
    with pytest.raises(IntegrityError):
        async with session_scope() as db:
            db.add(Session(user_id=12345, token_hash="b" * 64, expires_at=datetime.now(UTC)))
