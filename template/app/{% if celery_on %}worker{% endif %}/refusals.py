"""How long to wait when Redis refuses a command: a failover, a full memory or a missing permission is an outage that ends."""

import time

import structlog

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
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
            _logger.warning("broker_refuses", error=repr(error), action="tried again until it accepts")
        self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
        self._until = time.monotonic() + self._pause

    def accepted(self) -> None:
        """End the outage."""
        if self._pause:
            self._pause = 0.0
            _logger.info("broker_accepts")
