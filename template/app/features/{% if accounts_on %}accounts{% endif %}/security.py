"""Hash and verify passwords with Argon2id."""

import base64
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.core.threads import BoundedThreads
from app.features.accounts.config import password_settings

MAX_WAIT = 8
"""How many seconds a password may wait to be hashed: about the time that one CPU needs for 50."""

_hasher = PasswordHasher()
# Each hash needs 64 MiB, so the number of threads limits the process's memory. With more than 64 waiting, the last
# would only wait for a timeout.
_threads = BoundedThreads("password", password_settings.hash_concurrency, max_waiting=64, max_wait=MAX_WAIT, nice=10)


async def hash_password(password: str) -> str:
    """Return a salted hash. Runs in a thread: it takes tens of milliseconds, which would block the event loop.

    Raises:
        ThreadsBusy: too many passwords are being hashed; the API returns 503.
    """
    return await _threads.run(_hasher.hash, password)


async def verify_password(password: str, password_hash: str | None) -> bool:
    """Return whether `password` matches the hash. The hash None matches no password, but takes the same time.

    Raises:
        ThreadsBusy: too many passwords are being hashed; the API returns 503.
    """
    return await _threads.run(_verify, password, _decoy() if password_hash is None else password_hash)


def needs_rehash(password_hash: str) -> bool:
    """Return whether the hash has other parameters than the current ones, so that the next login must replace it."""
    return _hasher.check_needs_rehash(password_hash)


def _decoy() -> str:
    """Return a random hash with the current parameters, which matches no known password."""
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
