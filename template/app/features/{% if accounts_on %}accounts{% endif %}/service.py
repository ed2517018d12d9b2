"""Accounts."""

from datetime import UTC, datetime

from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import matched_rows
from app.features.accounts.models import User
from app.features.accounts.security import hash_password, needs_rehash, verify_password


class EmailTaken(Exception):
    """The address has an account already."""


async def create_user(db: AsyncSession, email: str, password: SecretStr) -> User:
    """Add an account; the caller commits.

    Raises:
        EmailTaken: the address has one, possibly since a moment ago; the session can still be used.
    """
    # Hashed first: it takes a while, in which no connection should be held.
    return await add_user(db, email, await hash_password(password.get_secret_value()))


async def add_user(db: AsyncSession, email: str, password_hash: str) -> User:
    """Do the same with a password that is hashed already.

    The account counts as verified: it is added after the code was used, or where no code is asked for. Accounts that are
    `basic` today may be `complete` tomorrow, which refuses others.
    """
    user = User(email=email.lower(), password_hash=password_hash, is_verified=True)
    try:
        # The unique index decides, not a query before: two requests may come at the same time.
        async with db.begin_nested():
            db.add(user)
    except IntegrityError as error:
        raise EmailTaken(email) from error
    return user


async def authenticate(db: AsyncSession, email: str, password: SecretStr) -> User | None:
    """Return the active user of that address and password, or None in the same time for whatever is wrong."""
    user = await find_user(db, email)
    # Gives the connection back: verifying takes a while.
    await db.commit()
    matches = await verify_password(password.get_secret_value(), user.password_hash if user else None)
    if user is None or not matches or not user.is_active:
        return None
    return user


async def begin_login(db: AsyncSession, user: User, password: SecretStr) -> bool:
    """Hold the row of a user who was authenticated, or return False if the password or the account has changed since.

    Whoever sets a password ends the logins there are: without this, one under way would open after that with the old one.
    A hash of weaker parameters than today's is replaced. The caller commits.
    """
    verified = user.password_hash
    password_hash = await hash_password(password.get_secret_value()) if needs_rehash(verified) else verified
    same = (User.id == user.id, User.password_hash == verified, User.is_active)
    changes = {"password_hash": password_hash, "last_activity": datetime.now(UTC)}
    return bool(await matched_rows(db, update(User).where(*same).values(**changes)))


async def find_user(db: AsyncSession, email: str) -> User | None:
    """Return the user of that address."""
    return (await db.scalars(select(User).where(User.email == email.lower()))).one_or_none()
