"""The tables of accounts in the tests' database."""

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


async def test_datetimes_are_read_in_utc_with_microseconds() -> None:
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
async def test_addresses_that_differ_in_an_accent_are_different(other: str) -> None:
    """With MySQL's default collation, the code for one account would be mailed to the other address."""
    user_id = await _add_user()
    async with session_scope() as db:
        assert await find_user(db, other) is None
        added = User(email=other, password_hash="x")
        db.add(added)
        await db.flush()
        found = [await find_user(db, email) for email in ("ada@example.com", other)]
    assert [user.id for user in found if user] == [user_id, added.id]


async def test_deleting_a_user_deletes_the_sessions() -> None:
    user_id = await _add_user()
    async with session_scope() as db:
        db.add(Session(user_id=user_id, token_hash="a" * 64, expires_at=datetime.now(UTC)))
    async with session_scope() as db:
        await db.execute(delete(User))
        assert await db.scalar(select(func.count()).select_from(Session)) == 0


async def test_a_session_needs_an_existing_user() -> None:
    with pytest.raises(IntegrityError):
        async with session_scope() as db:
            db.add(Session(user_id=12345, token_hash="b" * 64, expires_at=datetime.now(UTC)))
