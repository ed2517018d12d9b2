"""JSON Web Tokens that name a user and a login, each for one use: what refreshes a login gives no access, and the reverse."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import jwt

from app.features.accounts.config import jwt_settings

Use = Literal["access", "refresh"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Hosts' clocks differ by a little.
_LEEWAY = 10


class InvalidToken(Exception):
    """It is no token of this application for that use, or it has expired."""


@dataclass(frozen=True)
class Claims:
    """Which login of which user a token stands for."""

    user_id: int
    session_id: int
    opened_at: datetime
    """When the session was opened. SQLite gives the id of a deleted row to another one, so the id alone would not do."""


def write_token(claims: Claims, use: Use, seconds: int) -> str:
    """Return a signed token that is good for so long; no two are the same."""
    config = jwt_settings
    now = datetime.now(UTC)
    payload = {
        "iss": config.issuer,
        "aud": config.audience,
        "iat": now,
        "exp": now + timedelta(seconds=seconds),
        "jti": secrets.token_urlsafe(16),
        "use": use,
        "sub": str(claims.user_id),
        "sid": f"{claims.session_id}.{(claims.opened_at - _EPOCH) // _MICROSECOND}",
    }
    return jwt.encode(payload, config.secret_key.get_secret_value(), algorithm=config.algorithm)


def read_token(token: str, use: Use) -> Claims:
    """Return what a token for that use says.

    Raises:
        InvalidToken: its signature, issuer, audience, use, form or time is not right.
    """
    config = jwt_settings
    try:
        payload = jwt.decode(
            token,
            config.secret_key.get_secret_value(),
            algorithms=[config.algorithm],
            issuer=config.issuer,
            audience=config.audience,
            leeway=_LEEWAY,
            options={"require": ["iss", "aud", "iat", "exp", "use", "sub", "sid"]},
        )
        if payload["use"] != use:
            raise InvalidToken(f"a token for {payload['use']}, not {use}")
        session_id, _, opened = payload["sid"].partition(".")
        return Claims(int(payload["sub"]), int(session_id), _EPOCH + int(opened) * _MICROSECOND)
    except (jwt.InvalidTokenError, AttributeError, OverflowError, ValueError) as error:
        raise InvalidToken(f"no {use} token of this application, or expired") from error
