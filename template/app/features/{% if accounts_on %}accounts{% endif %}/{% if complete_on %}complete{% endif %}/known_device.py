"""Device cookies: recognize a device that has logged in before, so that an attacker cannot use up the user's attempts.

The signed cookie gives no access; it only gives the device its own rate limit.
https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies
"""

import hashlib
import hmac
import secrets
import time

from fastapi import Request, Response

from app.core.config.application import app_settings
from app.features.accounts.config import jwt_settings

_SECONDS = 180 * 86400


def remember_device(request: Request, response: Response, email: str) -> None:
    """Set the cookie after a login, unless the device already has one."""
    if known_device(request, email) is not None:
        return
    payload = f"{secrets.token_urlsafe(16)}.{int(time.time()) + _SECONDS}"
    response.set_cookie(
        _name(email),
        f"{payload}.{_signature(email, payload)}",
        max_age=_SECONDS,
        httponly=True,
        # `make dev` and tests have no TLS.
        secure=app_settings.must_be_safe,
        samesite="lax",
    )


def known_device(request: Request, email: str) -> str | None:
    """Return the device's id if the account has logged in from it, else None."""
    payload, _, signature = request.cookies.get(_name(email), "").rpartition(".")
    if not hmac.compare_digest(_signature(email, payload).encode(), signature.encode()):
        return None
    device, _, expires = payload.rpartition(".")
    return device if int(expires) > time.time() else None


def _name(email: str) -> str:
    # One cookie per account: a device may be used with several.
    return f"device_{_mac('name', email)[:16]}"


def _signature(email: str, payload: str) -> str:
    return _mac(payload, email)


def _mac(text: str, email: str) -> str:
    key = jwt_settings.secret_key.get_secret_value().encode()
    return hmac.new(key, f"device:{text}:{email.lower()}".encode(), hashlib.sha256).hexdigest()
