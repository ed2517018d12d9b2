"""Open, refresh, list and end logins. A session has one valid refresh token, which is single-use."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import matched_rows
from app.features.accounts.config import jwt_settings
from app.features.accounts.models import Session, User
from app.features.accounts.sessions import access_token, claims, find_login, hash_token, new_token, open_session
from app.features.accounts.tokens import InvalidToken, read_token, write_token

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Tokens:
    """The tokens of a login."""

    access: str
    refresh: str


async def open_login(db: AsyncSession, user: User, user_agent: str | None) -> Tokens:
    """Open a session, in the same transaction as `begin_login`; the caller commits."""
    session = await open_session(db, user, new_token(), jwt_settings.refresh_token_expiration, user_agent)
    refresh = _refresh_token(session)
    session.token_hash = hash_token(refresh)
    return Tokens(access_token(session), refresh)


async def refresh_login(db: AsyncSession, token: str) -> Tokens:
    """Return new tokens for a refresh token, which becomes invalid, and extend the session. Commits.

    A reused token ends its session: two clients have it, so one of them has stolen it.
    https://www.rfc-editor.org/rfc/rfc9700#section-4.14.2

    Raises:
        InvalidToken: the token is not the refresh token of an active session.
    """
    found = await find_login(db, read_token(token, "refresh"))
    if found is None:
        raise InvalidToken("the login has ended")
    user, session = found
    await db.commit()
    now = datetime.now(UTC)
    tokens = Tokens(access_token(session), _refresh_token(session))
    renewed = update(Session).where(Session.id == session.id, Session.token_hash == hash_token(token))
    renewed = renewed.values(
        token_hash=hash_token(tokens.refresh),
        expires_at=now + timedelta(seconds=jwt_settings.refresh_token_expiration),
        last_used_at=now,
    )
    await matched_rows(db, update(User).where(User.id == user.id).values(last_activity=now))
    if not await matched_rows(db, renewed):
        await end_login(db, user, session.id)
        await db.commit()
        _logger.warning("refresh_token_reused", user_id=user.id)
        raise InvalidToken("the refresh token was used before; its login has ended")
    await db.commit()
    return tokens


async def list_logins(db: AsyncSession, user: User) -> list[Session]:
    """Return the user's active sessions, the most recently used first."""
    query = select(Session).where(Session.user_id == user.id, Session.expires_at > datetime.now(UTC))
    return list(await db.scalars(query.order_by(Session.last_used_at.desc(), Session.id.desc())))


async def end_login(db: AsyncSession, user: User, session_id: int) -> bool:
    """End one of the user's sessions and return whether it existed; the caller commits."""
    one = delete(Session).where(Session.id == session_id, Session.user_id == user.id)
    return bool(await matched_rows(db, one))


async def end_logins(db: AsyncSession, user: User, *, except_session: int | None = None) -> None:
    """End all of the user's sessions, except one if given; the caller commits."""
    statement = delete(Session).where(Session.user_id == user.id)
    await matched_rows(db, statement if except_session is None else statement.where(Session.id != except_session))


def _refresh_token(session: Session) -> str:
    return write_token(claims(session), "refresh", jwt_settings.refresh_token_expiration)
