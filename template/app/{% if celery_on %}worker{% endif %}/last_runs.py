"""When each entry of the schedule last ran, kept in the broker's database beside beat's file.

The file is gone where a pod is replaced, and then an entry of a day that never ran in the pod's life would never run at all.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

KEY = "beat:last_runs"

_logger = get_logger(__name__)


def store(app: Any, entry: str, when: datetime) -> None:
    """Keep when an entry was queued. Where Redis does not answer, the file alone knows."""
    _with_client(app, lambda client: client.hset(KEY, entry, when.timestamp()))


def read(app: Any, entries: Iterable[str]) -> dict[str, datetime]:
    """Return when entries were last queued, and forget those that are not named."""
    stored = {
        name.decode(): float(value) for name, value in (_with_client(app, lambda c: c.hgetall(KEY)) or {}).items()
    }
    gone = sorted(stored.keys() - set(entries))
    if gone:
        _with_client(app, lambda client: client.hdel(KEY, *gone))
    return {name: datetime.fromtimestamp(when, UTC) for name, when in stored.items() if name not in gone}


def _with_client(app: Any, use: Any) -> Any:
    try:
        with app.pool.acquire(block=True, timeout=2) as connection:
            return use(connection.default_channel.client)
    except (RedisError, OperationalError, OSError) as error:
        _logger.warning("the schedule's last runs cannot be read or stored: %r", error)
        return None
