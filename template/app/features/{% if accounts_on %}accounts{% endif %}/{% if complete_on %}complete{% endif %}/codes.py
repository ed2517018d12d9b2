"""Codes that are mailed: random, hashed, good for a while and for a few tries, and for one use."""

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
"""Wrong codes until a code is void, from whichever clients: one client alone has far fewer, see app/features/accounts/complete/limits.py."""
# Without what looks alike: 31 ** 8 codes, of which a hundred tries find the right one once in 8 * 10 ** 9.
_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_LENGTH = 8


async def new_code(db: AsyncSession, user: User, purpose: Purpose) -> str:
    """Return a new code in place of an earlier one; the caller holds the user's row and commits."""
    code = draw_code()
    expires = datetime.now(UTC) + timedelta(seconds=code_settings.expiration)
    await db.execute(delete(AccountCode).where(AccountCode.user_id == user.id, AccountCode.purpose == purpose))
    db.add(AccountCode(user_id=user.id, purpose=purpose, code_hash=_hash(user.id, purpose, code), expires_at=expires))
    await db.flush()
    return code


async def use_code(db: AsyncSession, email: str, purpose: Purpose, code: str) -> User | None:
    """Return the active user whose code it is, or None; the code is used up when the caller commits.

    Commits the count of tries first, which stands whatever becomes of the request.
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
    if counted and user is not None and await _spend(db, user, purpose, code):
        return user
    # Holds no row while a wrong code is answered.
    await db.rollback()
    return None


async def _spend(db: AsyncSession, user: User, purpose: Purpose, code: str) -> bool:
    own = (AccountCode.user_id == user.id, AccountCode.purpose == purpose)
    stored = (await db.scalars(select(AccountCode).where(*own))).one_or_none()
    # None where a request at the same time has used it.
    if stored is None or not hmac.compare_digest(stored.code_hash, _hash(user.id, purpose, normal_code(code))):
        return False
    return bool(await matched_rows(db, delete(AccountCode).where(AccountCode.id == stored.id)))


async def lock_user(db: AsyncSession, email: str) -> User | None:
    """Return the active user of that address, whose row nobody else changes until the caller commits.

    Whoever changes a user's rows takes the user's own first: two who took them the other way round would wait for each other.
    """
    query = select(User).where(User.email == email.lower(), User.is_active).with_for_update()
    return (await db.scalars(query)).one_or_none()


async def drop_codes(db: AsyncSession, user: User) -> None:
    """Forget the user's codes; the caller commits."""
    await db.execute(delete(AccountCode).where(AccountCode.user_id == user.id))


def draw_code() -> str:
    """Return a random code."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def normal_code(code: str) -> str:
    """Return a code as it was drawn: case, spaces and hyphens do not matter."""
    return code.upper().replace("-", "").replace(" ", "")


def hash_code(whose: str, code: str) -> str:
    """Return what is stored of a code; `whose` says what it is for."""
    # Keyed: a code is short enough to be found from a plain hash in a stolen database.
    key = jwt_settings.secret_key.get_secret_value().encode()
    return hmac.new(key, f"account-code:{whose}:{code}".encode(), hashlib.sha256).hexdigest()


def _hash(user_id: int, purpose: Purpose, code: str) -> str:
    return hash_code(f"{purpose}:{user_id}", code)
