"""Passwords, hashed with Argon2id."""

import base64
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.core.threads import BoundedThreads
from app.features.accounts.config import password_settings

MAX_WAIT = 8
"""Seconds that a password waits to be hashed: about as long as 50 of them take on one CPU."""

_hasher = PasswordHasher()
# Each hash takes 64 MiB, so how many run at the same time bounds the memory of the process. Of more than 64 that wait, the last
# would wait for an error only.
_threads = BoundedThreads("password", password_settings.hash_concurrency, max_waiting=64, max_wait=MAX_WAIT, nice=10)


async def hash_password(password: str) -> str:
    """Return a salted hash; in a thread, as it takes tens of milliseconds that the event loop does not have.

    Raises:
        ThreadsBusy: too many passwords are being hashed; the API answers 503.
    """
    return await _threads.run(_hasher.hash, password)


async def verify_password(password: str, password_hash: str | None) -> bool:
    """Return whether `password` belongs to the hash; None belongs to no password and takes as long to say so.

    Raises:
        ThreadsBusy: see `hash_password`; for a hash and for None alike.
    """
    return await _threads.run(_verify, password, _decoy() if password_hash is None else password_hash)


def needs_rehash(password_hash: str) -> bool:
    """Return whether the hash was made with weaker parameters than today's: hash the password anew at the next login."""
    return _hasher.check_needs_rehash(password_hash)


def _decoy() -> str:
    """Return a hash of today's parameters that nobody knows a password of."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (_hasher.salt_len, _hasher.hash_len)
    )
    costs = f"m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


def _verify(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
