"""Logins: opening a session, and finding the one that an access token names."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.accounts.config import jwt_settings
from app.features.accounts.models import Session, User
from app.features.accounts.tokens import Claims, write_token


def new_token() -> str:
    """Return 256 random bits as text."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return what is stored of a random token: it needs no salt and no slow hash, as it cannot be guessed."""
    return hashlib.sha256(token.encode()).hexdigest()


async def open_session(db: AsyncSession, user: User, token: str, seconds: int, user_agent: str | None) -> Session:
    """Add a session that lasts so long and that `token` stands for; the caller commits."""
    now = datetime.now(UTC)
    expires = now + timedelta(seconds=seconds)
    session = Session(user_id=user.id, token_hash=hash_token(token), created_at=now, expires_at=expires)
    session.user_agent = user_agent[:255] if user_agent else None
    db.add(session)
    await db.flush()
    return session


def access_token(session: Session) -> str:
    """Return an access token for a session."""
    return write_token(claims(session), "access", jwt_settings.access_token_expiration)


def claims(session: Session) -> Claims:
    """Return what a session's tokens say."""
    return Claims(session.user_id, session.id, session.created_at)


async def find_login(db: AsyncSession, claims: Claims) -> tuple[User, Session] | None:
    """Return the user and the session that an access token names, or None if the login or the account has ended."""
    query = (
        select(User, Session)
        .join(Session, Session.user_id == User.id)
        .where(
            Session.id == claims.session_id,
            Session.created_at == claims.opened_at,
            Session.expires_at > datetime.now(UTC),
            User.id == claims.user_id,
            User.is_active,
        )
    )
    found = (await db.execute(query)).one_or_none()
    return None if found is None else (found[0], found[1])
