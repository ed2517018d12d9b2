"""Devices from which somebody has logged in: a signed cookie, so that a stranger's attempts do not use up the owner's.

The cookie opens nothing; it only names whose attempts are counted. https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies
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
    """Set the cookie after a login, unless the device has one."""
    if known_device(request, email) is not None:
        return
    stated = f"{secrets.token_urlsafe(16)}.{int(time.time()) + _SECONDS}"
    response.set_cookie(
        _name(email),
        f"{stated}.{_signature(email, stated)}",
        max_age=_SECONDS,
        httponly=True,
        # `make dev` and tests have no TLS.
        secure=app_settings.must_be_safe,
        samesite="lax",
    )


def known_device(request: Request, email: str) -> str | None:
    """Return what names the device, if the owner of the account has logged in from it, or None."""
    stated, _, signature = request.cookies.get(_name(email), "").rpartition(".")
    if not hmac.compare_digest(_signature(email, stated).encode(), signature.encode()):
        return None
    device, _, expires = stated.rpartition(".")
    return device if int(expires) > time.time() else None


def _name(email: str) -> str:
    # One for each account: two of them may be used on a device.
    return f"device_{_mac('name', email)[:16]}"


def _signature(email: str, stated: str) -> str:
    return _mac(stated, email)


def _mac(text: str, email: str) -> str:
    key = jwt_settings.secret_key.get_secret_value().encode()
    return hmac.new(key, f"device:{text}:{email.lower()}".encode(), hashlib.sha256).hexdigest()
