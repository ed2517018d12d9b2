"""A worker's thread that does something every few seconds, on a connection to the broker of its own.

A thread, as Celery's timer does not fire in a solo worker while a task runs.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

_logger = get_logger(__name__)


class Repeating:
    """Calls `work` with a channel to the broker every `interval` seconds, until it is stopped."""

    def __init__(self, name: str, interval: float, work: Callable[[Any], None]) -> None:
        self._name = name
        self._interval = interval
        self._work = work
        self._stopped = threading.Event()
        # No child is forked while the thread is inside a library: it would inherit whatever lock is held there, locked
        # for ever.
        self._working = threading.Lock()
        os.register_at_fork(
            before=self._working.acquire, after_in_parent=self._working.release, after_in_child=self._working.release
        )

    def start(self, app: Any) -> None:
        """Start the thread; the first call of `work` comes at once."""
        self._stopped = threading.Event()
        threading.Thread(target=self._run, args=(app, self._stopped), name=self._name, daemon=True).start()

    def stop(self) -> None:
        """Let the thread end after what it is doing."""
        self._stopped.set()

    def _run(self, app: Any, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                with app.connection_for_write() as connection:
                    while True:
                        with self._working:
                            self._work(connection.default_channel)
                        if stopped.wait(self._interval):
                            return
            except (RedisError, OperationalError, OSError) as error:
                _logger.warning("%s missed: %r; trying again in %s s", self._name, error, self._interval)
                stopped.wait(self._interval)
