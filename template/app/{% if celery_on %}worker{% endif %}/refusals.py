"""How long to wait when Redis refuses a command: a failover, a full memory or a missing permission is an outage that ends."""

import threading
import time
from typing import Any

import structlog
from celery import bootsteps
from celery.worker import state

from app.core.logging import error_repr

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_state: Any = state
_logger = structlog.get_logger("app.worker")


class Refusals:
    """The pause after refused commands, twice as long after each."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._until = float("-inf")

    def may_try(self, now: float) -> bool:
        """Return whether the pause is over; `now` is `time.monotonic()`."""
        return now >= self._until

    def refused(self, error: Exception) -> None:
        """Start a pause."""
        if not self._pause:
            _logger.warning("broker_refuses", error=error_repr(error), action="tried again until it accepts")
        self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
        self._until = time.monotonic() + self._pause

    def accepted(self) -> None:
        """End the outage."""
        if self._pause:
            self._pause = 0.0
            _logger.info("broker_accepts")


class StartPause(bootsteps.StartStopStep):
    """Pauses a worker between attempts to start consuming: Celery makes several a second, each with a new connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_: object) -> None:
        self._is_started = False
        self._pause = 0.0

    def start(self, consumer: Any) -> None:
        """End the outage: the worker consumes."""
        self._is_started, self._pause = True, 0.0

    def stop(self, consumer: Any) -> None:
        """Wait, if the worker could not start consuming and is not stopping."""
        if self._is_started:
            self._is_started = False
            return
        self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
        until = time.monotonic() + self._pause
        while _state.should_stop is None and _state.should_terminate is None and time.monotonic() < until:
            threading.Event().wait(_FIRST_PAUSE)
