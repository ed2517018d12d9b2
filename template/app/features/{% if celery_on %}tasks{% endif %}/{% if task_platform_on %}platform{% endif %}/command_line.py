"""What the commands share: they call the functions of the API, as an operator, and exit with 4 if Redis does not answer."""

from collections.abc import Coroutine
from typing import Any, TypeVar

# Celery's default application would use another Redis.
import app.core.celery  # noqa: F401
from app.cli import console
from app.worker.broker import QueueUnavailable

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], *outages: type[Exception]) -> T:
    """Run a coroutine that uses the queue, and return its result; exit if Redis is unreachable, or with one of `outages`."""
    return console.run(main, QueueUnavailable, *outages)
