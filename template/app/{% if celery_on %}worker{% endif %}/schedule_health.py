"""Entries of the schedule that could not be queued: stored in the broker's database until they are, for GET /ready."""

from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

from app.core.logging import error_repr
from app.worker.broker import OUTAGES, broker_client, in_thread

KEY = "schedule:failed"
EXPIRES = 7 * 86400
_logger = get_logger(__name__)


def record_failure(entry: str, error: BaseException) -> None:
    """Record that an entry was not queued, unless Redis is the reason: GET /ready checks that separately."""
    if isinstance(error, OUTAGES):
        return
    _logger.error("the schedule's entry %r cannot be queued: %s: %s", entry, type(error).__name__, error)
    _write(lambda client: (client.hset(KEY, entry, type(error).__name__), client.expire(KEY, EXPIRES)))


def record_success(entry: str) -> None:
    """Delete the record of a failure, which may be that of another beat."""
    _write(lambda client: client.hdel(KEY, entry))


def reset() -> None:
    """Delete what an earlier beat recorded: its entries may not exist any more."""
    _write(lambda client: client.delete(KEY))


async def check() -> None:
    """Return if every entry of the schedule is queued when it is due.

    Raises:
        RuntimeError: some are not; the log of beat has the reason.
        app.worker.broker.QueueUnavailable: Redis does not answer.
    """
    names = await in_thread(_failed_entries)
    if names:
        raise RuntimeError(f"not queued: {', '.join(names)}")


def _failed_entries() -> list[str]:
    with broker_client() as client:
        return sorted(name.decode() for name in client.hkeys(KEY))


def _write(change: Callable[[Any], Any]) -> None:
    try:
        with broker_client() as client:
            change(client)
    except OUTAGES as error:
        _logger.warning("the state of the schedule's entries is not stored: %s", error_repr(error))
