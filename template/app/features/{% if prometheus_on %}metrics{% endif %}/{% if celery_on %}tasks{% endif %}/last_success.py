"""When tasks with `record_last_success` last succeeded, kept in the broker's database: no restart of any process forgets it."""

import time
from typing import Any

import structlog
from celery.signals import task_success
from kombu.exceptions import LimitExceeded, OperationalError
from redis.exceptions import RedisError

from app.worker.broker import broker_client

_KEY = "tasks:last_success"
_logger = structlog.get_logger("app.worker")


def connect() -> None:
    """Keep it from now on."""
    task_success.connect(_keep, weak=False)


def read(client: Any) -> dict[str, float]:
    """Return the seconds since 1970 by the task's name; `client` is one of the broker's database.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return {name.decode(): float(when) for name, when in client.hgetall(_KEY).items()}


def _keep(sender: Any, **_: object) -> None:
    if not getattr(sender, "record_last_success", False):
        return
    try:
        with broker_client() as client:
            client.hset(_KEY, sender.name, time.time())
    except (LimitExceeded, OperationalError, RedisError, OSError) as error:
        # The work is done; what is missing is an alarm too many.
        _logger.warning("last_success_not_kept", task=sender.name, error=repr(error))
