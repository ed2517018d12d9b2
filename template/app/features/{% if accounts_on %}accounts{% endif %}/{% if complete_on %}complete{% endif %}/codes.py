"""Single-use codes that are mailed. They are stored as a hash, expire, and allow a limited number of attempts."""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import matched_rows
from app.features.accounts.complete.config import code_settings
from app.features.accounts.complete.models import AccountCode
from app.features.accounts.config import jwt_settings
from app.features.accounts.models import User

Purpose = Literal["verify", "reset"]

TRIES = 100
"""Wrong attempts, by all clients together, that invalidate a code. limits.py allows a single client far fewer."""
# Without characters that look alike. 100 attempts at 31 ** 8 codes succeed with a probability of 1 in 8 * 10 ** 9.
_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_LENGTH = 8


async def new_code(db: AsyncSession, user: User, purpose: Purpose) -> str:
    """Create a code that replaces an earlier one. The caller has locked the user's row, and commits."""
    code = random_code()
    expires = datetime.now(UTC) + timedelta(seconds=code_settings.expiration)
    await db.execute(delete(AccountCode).where(AccountCode.user_id == user.id, AccountCode.purpose == purpose))
    db.add(AccountCode(user_id=user.id, purpose=purpose, code_hash=_hash(user.id, purpose, code), expires_at=expires))
    await db.flush()
    return code


async def use_code(db: AsyncSession, email: str, purpose: Purpose, code: str) -> User | None:
    """Return the active user if the code is correct, else None. The caller's commit deletes the code.

    Commits the number of attempts first, so that it counts even if the request fails.
    """
    owner = select(User.id).where(User.email == email.lower(), User.is_active).scalar_subquery()
    usable = (
        AccountCode.user_id == owner,
        AccountCode.purpose == purpose,
        AccountCode.expires_at > datetime.now(UTC),
        AccountCode.tries < TRIES,
    )
    counted = await matched_rows(db, update(AccountCode).where(*usable).values(tries=AccountCode.tries + 1))
    await db.commit()
    user = await lock_user(db, email)
    if counted and user is not None and await _consume(db, user, purpose, code):
        return user
    # Release the lock on the user's row before the response to a wrong code, which is delayed.
    await db.rollback()
    return None


async def _consume(db: AsyncSession, user: User, purpose: Purpose, code: str) -> bool:
    own = (AccountCode.user_id == user.id, AccountCode.purpose == purpose)
    stored = (await db.scalars(select(AccountCode).where(*own))).one_or_none()
    # None if a concurrent request has used it.
    if stored is None or not hmac.compare_digest(stored.code_hash, _hash(user.id, purpose, normalize_code(code))):
        return False
    return bool(await matched_rows(db, delete(AccountCode).where(AccountCode.id == stored.id)))


async def lock_user(db: AsyncSession, email: str) -> User | None:
    """Return the active user with this address and lock the row until the caller commits.

    Lock the user's row before any other row of that user; a different order could cause a deadlock.
    """
    query = select(User).where(User.email == email.lower(), User.is_active).with_for_update()
    return (await db.scalars(query)).one_or_none()


async def drop_codes(db: AsyncSession, user: User) -> None:
    """Delete the user's codes; the caller commits."""
    await db.execute(delete(AccountCode).where(AccountCode.user_id == user.id))


def random_code() -> str:
    """Return a random code."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def normalize_code(code: str) -> str:
    """Return the code in upper case, without spaces and hyphens."""
    return code.upper().replace("-", "").replace(" ", "")


def hash_code(scope: str, code: str) -> str:
    """Return the hash of a code as it is stored; `scope` is what the code is for."""
    # A keyed hash: with a plain hash, codes this short could be recovered from a stolen database.
    key = jwt_settings.secret_key.get_secret_value().encode()
    return hmac.new(key, f"account-code:{scope}:{code}".encode(), hashlib.sha256).hexdigest()


def _hash(user_id: int, purpose: Purpose, code: str) -> str:
    return hash_code(f"{purpose}:{user_id}", code)
