"""Registration by mail: each waits with its own password for its own code, so that nobody sets another one's password."""

import hmac
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import matched_rows
from app.features.accounts.complete.codes import TRIES, draw_code, drop_codes, hash_code, lock_user, normal_code
from app.features.accounts.complete.config import code_settings
from app.features.accounts.complete.logins import end_logins
from app.features.accounts.complete.models import AccountRegistration
from app.features.accounts.models import User
from app.features.accounts.security import hash_password, verify_password
from app.features.accounts.service import EmailTaken, add_user

_NEWEST = 3
"""Registrations of an address that a failed login is compared with: each takes as long as a login."""


async def register(db: AsyncSession, email: str, password: SecretStr) -> int:
    """Add a registration and return its id, the same for every address; the caller commits.

    It is added where the address has an account too: a login with its password then fails as it does where there is none.
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
    """Return a new code for a registration, or None where it has expired; the caller commits."""
    code = draw_code()
    values = {"code_hash": _hash(registration_id, code), "tries": 0, "expires_at": _expiry()}
    one = update(AccountRegistration).where(AccountRegistration.id == registration_id, _is_open())
    return code if await matched_rows(db, one.values(**values)) else None


async def waiting_registrations(db: AsyncSession, email: str) -> list[int]:
    """Return the ids of the newest registrations whose code was mailed and not used."""
    waits = (AccountRegistration.email == email.lower(), AccountRegistration.code_hash.is_not(None), _is_open())
    query = select(AccountRegistration.id).where(*waits).order_by(AccountRegistration.id.desc()).limit(_NEWEST)
    return list(await db.scalars(query))


async def use_registration(db: AsyncSession, email: str, code: str) -> User | None:
    """Return the account of the registration whose code it is, with the password of that registration, or None.

    Adds the account, or verifies the one that nobody has used. Commits the count of tries first, which stands whatever
    becomes of the request; the caller commits the rest.
    """
    waits = (
        AccountRegistration.email == email.lower(),
        AccountRegistration.code_hash.is_not(None),
        AccountRegistration.tries < TRIES,
        _is_open(),
    )
    normal = normal_code(code)
    found = None
    for registration in await db.scalars(select(AccountRegistration).where(*waits)):
        if hmac.compare_digest(registration.code_hash or "", _hash(registration.id, normal)):
            found = registration
    tried = waits if found is None else (*waits, AccountRegistration.id == found.id)
    # Parallel guesses beyond the last try match no row any more.
    counted = await matched_rows(
        db, update(AccountRegistration).where(*tried).values(tries=AccountRegistration.tries + 1)
    )
    await db.commit()
    if counted and found is not None:
        user = await _account_of(db, found)
        if user is not None:
            return user
    # Holds no row while a wrong code is answered.
    await db.rollback()
    return None


async def is_registered(db: AsyncSession, email: str, password: SecretStr) -> bool:
    """Return whether one of the newest registrations of the address has this password.

    It is compared with the same ones whether there is an account or not: nothing but registrations changes the time it takes.
    """
    of_address = (AccountRegistration.email == email.lower(), _is_open())
    query = select(AccountRegistration.password_hash).where(*of_address)
    hashes = list(await db.scalars(query.order_by(AccountRegistration.id.desc()).limit(_NEWEST)))
    # Gives the connection back: verifying takes a while.
    await db.commit()
    matches = [await verify_password(password.get_secret_value(), password_hash) for password_hash in hashes]
    return any(matches)


async def _account_of(db: AsyncSession, registration: AccountRegistration) -> User | None:
    known = await db.scalar(select(User.id).where(User.email == registration.email)) is not None
    user = await lock_user(db, registration.email)
    # A blocked account, or one that is in use: its owner has a password.
    if known and (user is None or user.is_verified or user.last_activity is not None):
        return None
    used = delete(AccountRegistration).where(AccountRegistration.id == registration.id)
    # None where a request at the same time has used it.
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
    # The others stay until they expire, without codes: a login with one of their passwords fails as before.
    others = update(AccountRegistration).where(AccountRegistration.email == registration.email)
    await matched_rows(db, others.values(code_hash=None))
    return user


def _is_open() -> ColumnElement[bool]:
    return AccountRegistration.expires_at > datetime.now(UTC)


def _expiry() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=code_settings.expiration)


def _hash(registration_id: int, code: str) -> str:
    return hash_code(f"registration:{registration_id}", code)
