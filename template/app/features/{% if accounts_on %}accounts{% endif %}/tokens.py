"""JSON Web Tokens for a user's login. A refresh token cannot be used as an access token, nor the reverse."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import jwt

from app.features.accounts.config import jwt_settings

Use = Literal["access", "refresh"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The clocks of hosts differ slightly.
_LEEWAY = 10


class InvalidToken(Exception):
    """The token is invalid for this application and use, or has expired."""


@dataclass(frozen=True)
class Claims:
    """The user and login session of a token."""

    user_id: int
    session_id: int
    opened_at: datetime
    """When the session was opened. The id is not enough, because SQLite reuses the ids of deleted rows."""


def write_token(claims: Claims, use: Use, seconds: int) -> str:
    """Return a unique signed token that expires after `seconds`."""
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
    """Return the claims of a token for this use.

    Raises:
        InvalidToken: its signature, issuer, audience, use or format is invalid, or it has expired.
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
            raise InvalidToken(f"expected a token for {use}, not for {payload['use']}")
        session_id, _, opened = payload["sid"].partition(".")
        return Claims(int(payload["sub"]), int(session_id), _EPOCH + int(opened) * _MICROSECOND)
    except (jwt.InvalidTokenError, AttributeError, OverflowError, ValueError) as error:
        raise InvalidToken(f"not a valid {use} token of this application, or expired") from error
