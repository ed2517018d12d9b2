"""Entries of the schedule that could not be queued: kept in the broker's database until they are, for GET /ready."""

from typing import Any

from celery import current_app
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.worker.publish import in_thread

KEY = "schedule:failed"
EXPIRES = 7 * 86400
_OUTAGES = (RedisError, OperationalError, OSError)
_logger = get_logger(__name__)


def failed(app: Any, entry: str, error: BaseException) -> None:
    """Note that an entry was not queued, unless Redis is the reason: that is checked on its own."""
    if isinstance(error, _OUTAGES):
        return
    _logger.error("the schedule's entry %r cannot be queued: %s: %s", entry, type(error).__name__, error)
    _write(app, lambda client: (client.hset(KEY, entry, type(error).__name__), client.expire(KEY, EXPIRES)))


def queued(app: Any, entry: str) -> None:
    """Forget that an entry was not queued."""
    # Another beat may have noted it.
    _write(app, lambda client: client.hdel(KEY, entry))


def reset(app: Any) -> None:
    """Forget what an earlier beat noted: its entries may be gone."""
    _write(app, lambda client: client.delete(KEY))


def _write(app: Any, change: Any) -> None:
    try:
        with app.pool.acquire(block=True, timeout=2) as connection:
            change(connection.default_channel.client)
    except _OUTAGES as error:
        _logger.warning("the state of the schedule's entries is not stored: %r", error)


async def check() -> None:
    """Return if every entry of the schedule is queued when it is due.

    Raises:
        RuntimeError: some are not; the log of beat says why.
        app.worker.publish.QueueUnavailable: Redis does not answer.
    """
    names = await in_thread(_failed)
    if names:
        raise RuntimeError(f"not queued: {', '.join(names)}")


def _failed() -> list[str]:
    pool: Any = current_app.pool
    with pool.acquire(block=True, timeout=2) as connection:
        return sorted(name.decode() for name in connection.default_channel.client.hkeys(KEY))
