"""Open login sessions and find the session of a token."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.accounts.config import jwt_settings
from app.features.accounts.models import Session, User
from app.features.accounts.tokens import Claims, write_token


def new_token() -> str:
    """Return a random token of 256 bits."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return the hash of a random token. It needs no salt and no slow hash, because the token cannot be guessed."""
    return hashlib.sha256(token.encode()).hexdigest()


async def open_session(db: AsyncSession, user: User, token: str, seconds: int, user_agent: str | None) -> Session:
    """Add a session for `token` that expires after `seconds`; the caller commits."""
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
    """Return the claims of a session's tokens."""
    return Claims(session.user_id, session.id, session.created_at)


async def find_login(db: AsyncSession, claims: Claims) -> tuple[User, Session] | None:
    """Return the user and session of a token's claims, or None if the login has ended or the account is inactive."""
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
