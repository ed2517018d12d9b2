"""Do something once: the fact that it was done is committed with its effect. docs/database-and-tasks.md has examples."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

from sqlalchemy import CursorResult, Insert, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from app.models.tasks import OnceKey

KEPT_FOR = timedelta(days=30)
"""How long a key of `once` is kept: longer than any task is redelivered or retried."""

MAX_LENGTH = 1000
"""Characters of a key."""

_TABLE: Any = OnceKey.__table__
_ATTEMPTS = 3
_TRIMMED_AT_ONCE = 1000


class Claimed(NamedTuple):
    """A key that was stored before."""

    value: str | None


async def once(session: AsyncSession, key: str, *, kept_for: timedelta = KEPT_FOR) -> bool:
    """Return True the first time, and False if a transaction with this key was committed before: `await once(db, "pay 17")`.

    The key is committed or rolled back with everything else in the session. Of two at the same time the second waits for the
    first, and gets False if that commits; on SQLite it waits up to 10 s, and then the database refuses it.

    Raises:
        ValueError: the key is empty or too long.
        sqlalchemy.exc.DBAPIError: the database refuses it, such as after a deadlock; roll back and try again.
    """
    return await claim(session, key, None, kept_for) is None


async def claim(session: AsyncSession, key: str, value: str | None, kept_for: timedelta) -> Claimed | None:
    """Return None if the key is new, and store it with a value; otherwise return what was stored before.

    Raises:
        ValueError, sqlalchemy.exc.DBAPIError: see `once`.
    """
    if not 0 < len(key) <= MAX_LENGTH:
        raise ValueError(f"the key of once has {len(key)} characters; 1 to {MAX_LENGTH} are allowed.")
    key_hash = _hash(key)
    # More than one attempt only if an expired key is there.
    for _ in range(_ATTEMPTS):
        now = datetime.now(UTC)
        row = {"key_hash": key_hash, "value": value, "expires_at": now + kept_for}
        inserted = cast("CursorResult[Any]", await session.execute(_insert_unless_there(session).values(row)))
        if inserted.rowcount:
            return None
        # A locking read: on MySQL, another one would not see what was committed after this transaction's first query.
        query = select(OnceKey.value, OnceKey.expires_at).where(OnceKey.key_hash == key_hash)
        found = (await session.execute(query.with_for_update(read=True))).one_or_none()
        if found is None:
            continue
        if found.expires_at > now:
            return Claimed(found.value)
        expired = delete(OnceKey).where(OnceKey.key_hash == key_hash, OnceKey.expires_at == found.expires_at)
        await session.execute(expired, execution_options={"synchronize_session": False})
    raise RuntimeError("the key of once is deleted again and again")


async def release(session: AsyncSession, key: str) -> None:
    """Delete a key that this transaction has claimed.

    Raises:
        sqlalchemy.exc.DBAPIError: see `once`.
    """
    own = delete(OnceKey).where(OnceKey.key_hash == _hash(key))
    await session.execute(own, execution_options={"synchronize_session": False})


async def trim(session: AsyncSession) -> int:
    """Delete keys that have expired, and return how many; the caller commits."""
    expired = select(OnceKey.key_hash).where(OnceKey.expires_at < datetime.now(UTC)).limit(_TRIMMED_AT_ONCE)
    found = list(await session.scalars(expired))
    if found:
        old = delete(OnceKey).where(OnceKey.key_hash.in_(found), OnceKey.expires_at < datetime.now(UTC))
        await session.execute(old, execution_options={"synchronize_session": False})
    return len(found)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _insert_unless_there(session: AsyncSession) -> Insert:
    name = session.get_bind().dialect.name
    if name == "postgresql":
        return postgresql.insert(_TABLE).on_conflict_do_nothing()
    if name == "sqlite":
        return sqlite.insert(_TABLE).on_conflict_do_nothing()
    return insert(_TABLE).prefix_with("IGNORE")
