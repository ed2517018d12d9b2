"""Create accounts and verify logins."""

from datetime import UTC, datetime

from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import matched_rows
from app.features.accounts.models import User
from app.features.accounts.security import hash_password, needs_rehash, verify_password


class EmailTaken(Exception):
    """The address already has an account."""


async def create_user(db: AsyncSession, email: str, password: SecretStr) -> User:
    """Create an account; the caller commits.

    Raises:
        EmailTaken: the address already has an account; the session can still be used.
    """
    # Hash first: it takes a while, during which no connection should be in use.
    return await add_user(db, email, await hash_password(password.get_secret_value()))


async def add_user(db: AsyncSession, email: str, password_hash: str) -> User:
    """Create an account with a hashed password; the caller commits.

    The account is verified: its code was used, or basic accounts need none. Without this, a later change from `basic`
    to `complete` accounts would lock the user out.

    Raises:
        EmailTaken: the address already has an account; the session can still be used.
    """
    user = User(email=email.lower(), password_hash=password_hash, is_verified=True)
    try:
        # The unique index decides instead of a query, because requests may be concurrent.
        async with db.begin_nested():
            db.add(user)
    except IntegrityError as error:
        raise EmailTaken(email) from error
    return user


async def authenticate(db: AsyncSession, email: str, password: SecretStr) -> User | None:
    """Return the active user with this address and password, or None. Takes the same time whatever is incorrect."""
    user = await find_user(db, email)
    # Return the connection to the pool: verifying takes a while.
    await db.commit()
    matches = await verify_password(password.get_secret_value(), user.password_hash if user else None)
    if user is None or not matches or not user.is_active:
        return None
    return user


async def begin_login(db: AsyncSession, user: User, password: SecretStr) -> bool:
    """Lock the row of an authenticated user; return False if the password or the account has changed since.

    Setting a password ends all logins. Without the lock, a login with the old password could still open after that.
    Replaces a hash with outdated parameters. The caller commits.
    """
    verified = user.password_hash
    password_hash = await hash_password(password.get_secret_value()) if needs_rehash(verified) else verified
    same = (User.id == user.id, User.password_hash == verified, User.is_active)
    changes = {"password_hash": password_hash, "last_activity": datetime.now(UTC)}
    return bool(await matched_rows(db, update(User).where(*same).values(**changes)))


async def find_user(db: AsyncSession, email: str) -> User | None:
    """Return the user with this address, or None."""
    return (await db.scalars(select(User).where(User.email == email.lower()))).one_or_none()


async def set_operator(db: AsyncSession, email: str, *, is_operator: bool) -> bool:
    """Make a user an operator or a plain user, and return False if there is no such user; the caller commits."""
    changed = update(User).where(User.email == email.lower()).values(is_operator=is_operator)
    return bool(await matched_rows(db, changed))


async def operators(db: AsyncSession) -> list[str]:
    """Return the addresses of all operators, sorted."""
    return list(await db.scalars(select(User.email).where(User.is_operator).order_by(User.email)))
