"""The thread that a worker's heartbeats run on: `VisibilityRenewal` in `visibility`, `LivenessHeartbeat` in `liveness`."""

import os
import threading
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger

from app.core.logging import error_repr
from app.worker.broker import OUTAGES, own_channel

_logger = get_logger(__name__)

# A child must not be forked while the thread is inside a library: it would inherit a lock that nobody releases.
_fork_lock = threading.Lock()
os.register_at_fork(before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_fork_lock.release)


class HeartbeatThread(bootsteps.StartStopStep):
    """Call `beat` every few seconds, from a thread: a timer would not fire in a solo worker that is busy."""

    label: str
    interval: float

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_: object) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, consumer: Any) -> None:
        """Start the thread; called again after a lost connection."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stopped,), name=self.label, daemon=True)
        self._thread.start()

    def stop(self, consumer: Any) -> None:
        """Stop the thread after its current beat."""
        self._stopped.set()

    def shutdown(self, consumer: Any) -> None:
        """Stop the thread after its current beat."""
        self.stop(consumer)

    def beat(self, channel: Any) -> None:
        """Send one heartbeat; `channel` is the thread's own connection to the broker."""
        raise NotImplementedError

    def _run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                with own_channel() as channel:
                    while True:
                        with _fork_lock:
                            self.beat(channel)
                        if stopped.wait(self.interval):
                            return
            except OUTAGES as error:
                _logger.warning("%s failed: %s; next attempt in %s s", self.label, error_repr(error), self.interval)
                stopped.wait(self.interval)
