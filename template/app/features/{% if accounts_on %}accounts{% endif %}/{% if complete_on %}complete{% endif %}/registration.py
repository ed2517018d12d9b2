"""Registrations that wait for a mailed code.

Each registration stores its own password and code, so that nobody can set the password of someone else's account.
"""

import hmac
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import matched_rows
from app.features.accounts.complete.codes import TRIES, drop_codes, hash_code, lock_user, normalize_code, random_code
from app.features.accounts.complete.config import code_settings
from app.features.accounts.complete.logins import end_logins
from app.features.accounts.complete.models import AccountRegistration
from app.features.accounts.models import User
from app.features.accounts.security import hash_password, verify_password
from app.features.accounts.service import EmailTaken, add_user

_NEWEST = 3
"""How many registrations of an address a failed login is compared with; each takes as long as a login."""


async def register(db: AsyncSession, email: str, password: SecretStr) -> int:
    """Add a registration and return its id; the caller commits.

    This also adds one if the address already has an account. A login with the registration's password then fails with
    the same response in both cases, which does not reveal the account.
    """
    password_hash = await hash_password(password.get_secret_value())
    email = email.lower()
    expired = (AccountRegistration.email == email, AccountRegistration.expires_at <= datetime.now(UTC))
    await matched_rows(db, delete(AccountRegistration).where(*expired))
    registration = AccountRegistration(email=email, password_hash=password_hash, expires_at=_expiry())
    db.add(registration)
    await db.flush()
    return registration.id


async def registration_code(db: AsyncSession, registration_id: int) -> str | None:
    """Return a new code for a registration, or None if it has expired; the caller commits."""
    code = random_code()
    values = {"code_hash": _hash(registration_id, code), "tries": 0, "expires_at": _expiry()}
    one = update(AccountRegistration).where(AccountRegistration.id == registration_id, _is_open())
    return code if await matched_rows(db, one.values(**values)) else None


async def pending_registrations(db: AsyncSession, email: str) -> list[int]:
    """Return the ids of the newest registrations whose code was mailed but not used."""
    waits = (AccountRegistration.email == email.lower(), AccountRegistration.code_hash.is_not(None), _is_open())
    query = select(AccountRegistration.id).where(*waits).order_by(AccountRegistration.id.desc()).limit(_NEWEST)
    return list(await db.scalars(query))


async def use_registration(db: AsyncSession, email: str, code: str) -> User | None:
    """Return the account of the registration with this code, and set its password; None if no code matches.

    Creates the account, or verifies one that was never used. Commits the number of attempts first, so that it counts
    even if the request fails; the caller commits the rest.
    """
    waits = (
        AccountRegistration.email == email.lower(),
        AccountRegistration.code_hash.is_not(None),
        AccountRegistration.tries < TRIES,
        _is_open(),
    )
    normal = normalize_code(code)
    found = None
    for registration in await db.scalars(select(AccountRegistration).where(*waits)):
        if hmac.compare_digest(registration.code_hash or "", _hash(registration.id, normal)):
            found = registration
    tried = waits if found is None else (*waits, AccountRegistration.id == found.id)
    # Concurrent guesses after the last allowed attempt match no row.
    counted = await matched_rows(
        db, update(AccountRegistration).where(*tried).values(tries=AccountRegistration.tries + 1)
    )
    await db.commit()
    if counted and found is not None:
        user = await _account_of(db, found)
        if user is not None:
            return user
    # Release the lock on the user's row before the response to a wrong code, which is delayed.
    await db.rollback()
    return None


async def is_registered(db: AsyncSession, email: str, password: SecretStr) -> bool:
    """Return whether one of the address's newest registrations has this password.

    The comparison takes the same time whether an account exists or not; it depends only on the registrations.
    """
    of_address = (AccountRegistration.email == email.lower(), _is_open())
    query = select(AccountRegistration.password_hash).where(*of_address)
    hashes = list(await db.scalars(query.order_by(AccountRegistration.id.desc()).limit(_NEWEST)))
    # Return the connection to the pool: verifying takes a while.
    await db.commit()
    matches = [await verify_password(password.get_secret_value(), password_hash) for password_hash in hashes]
    return any(matches)


async def _account_of(db: AsyncSession, registration: AccountRegistration) -> User | None:
    known = await db.scalar(select(User.id).where(User.email == registration.email)) is not None
    user = await lock_user(db, registration.email)
    # Do not change the password of a blocked account or of one that is in use.
    if known and (user is None or user.is_verified or user.last_activity is not None):
        return None
    used = delete(AccountRegistration).where(AccountRegistration.id == registration.id)
    # A concurrent request has used it.
    if not await matched_rows(db, used):
        return None
    if user is None:
        try:
            user = await add_user(db, registration.email, registration.password_hash)
        except EmailTaken:
            return None
    user.password_hash = registration.password_hash
    user.is_verified = True
    await end_logins(db, user)
    await drop_codes(db, user)
    # Keep the address's other registrations without codes until they expire: logins with their passwords fail as
    # before.
    others = update(AccountRegistration).where(AccountRegistration.email == registration.email)
    await matched_rows(db, others.values(code_hash=None))
    return user


def _is_open() -> ColumnElement[bool]:
    return AccountRegistration.expires_at > datetime.now(UTC)


def _expiry() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=code_settings.expiration)


def _hash(registration_id: int, code: str) -> str:
    return hash_code(f"registration:{registration_id}", code)
