"""When each entry of the schedule last ran, stored in the broker's database in addition to beat's file.

A replaced pod has no file: without this, an entry that runs once a day might never be due in the lifetime of a pod.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from celery.utils.log import get_logger

from app.core.logging import error_repr
from app.worker.broker import OUTAGES, broker_client

KEY = "beat:last_runs"

_logger = get_logger(__name__)


def store(entry: str, when: datetime) -> None:
    """Store when an entry was queued. If Redis does not answer, only the file has it."""
    _with_client(lambda client: client.hset(KEY, entry, when.timestamp()))


def read(entries: Iterable[str]) -> dict[str, datetime]:
    """Return when entries were last queued, and delete the entries that are not named."""
    stored = {
        name.decode(): float(value) for name, value in (_with_client(lambda client: client.hgetall(KEY)) or {}).items()
    }
    removed = sorted(stored.keys() - set(entries))
    if removed:
        _with_client(lambda client: client.hdel(KEY, *removed))
    return {name: datetime.fromtimestamp(when, UTC) for name, when in stored.items() if name not in removed}


def _with_client(call: Callable[[Any], Any]) -> Any:
    try:
        with broker_client() as client:
            return call(client)
    except OUTAGES as error:
        _logger.warning("the last runs of the schedule cannot be read or stored: %s", error_repr(error))
        return None
