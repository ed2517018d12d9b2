"""Store when tasks with `record_last_success` last succeeded, in the broker's database so that it survives restarts."""

import time
from typing import Any

import structlog
from celery.signals import task_success
from kombu.exceptions import LimitExceeded, OperationalError
from redis.exceptions import RedisError

from app.core.logging import error_repr
from app.worker.broker import broker_client

_KEY = "tasks:last_success"
_logger = structlog.get_logger("app.worker")


def connect() -> None:
    """Store the time of each success."""
    task_success.connect(_store, weak=False)


def read(client: Any) -> dict[str, float]:
    """Return the Unix time of the last success by task name; `client` is connected to the broker's database.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    return {name.decode(): float(when) for name, when in client.hgetall(_KEY).items()}


def _store(sender: Any, **_: object) -> None:
    if not getattr(sender, "record_last_success", False):
        return
    try:
        with broker_client() as client:
            client.hset(_KEY, sender.name, time.time())
    except (LimitExceeded, OperationalError, RedisError, OSError) as error:
        # The task has succeeded; at worst a false alarm follows.
        _logger.warning("last_success_not_kept", task=sender.name, error=error_repr(error))
