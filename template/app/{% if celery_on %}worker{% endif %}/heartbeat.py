"""The visibility heartbeat: a worker says every few seconds that it is there and still holds its tasks.

Redis has no notion of a consumer that went away: kombu gives a task to another worker once it is held for longer than the
visibility timeout. With the heartbeat that timeout is about dead workers, not about long tasks or countdowns.
"""

import os
import threading
import time
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings

_logger = get_logger(__name__)
_state: Any = state

# No child is forked while the thread is inside a library: it would inherit whatever lock is held there, locked for ever.
_beating = threading.Lock()
os.register_at_fork(before=_beating.acquire, after_in_parent=_beating.release, after_in_child=_beating.release)


class Beating(bootsteps.StartStopStep):
    """Does something every few seconds, from a thread: a timer would not fire in a solo worker that is busy."""

    interval: float
    what: str

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_: object) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, consumer: Any) -> None:
        """Start the thread; called again after a lost connection."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(consumer, self._stopped), name=self.what, daemon=True)
        self._thread.start()

    def stop(self, consumer: Any) -> None:
        """Let the thread end after what it is doing."""
        self._stopped.set()

    def shutdown(self, consumer: Any) -> None:
        """Do the same."""
        self.stop(consumer)

    def beat(self, channel: Any) -> None:
        """Do it; `channel` is a connection of the thread's own to the broker."""
        raise NotImplementedError

    def _run(self, consumer: Any, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                with consumer.app.connection_for_write() as connection:
                    while True:
                        with _beating:
                            self.beat(connection.default_channel)
                        if stopped.wait(self.interval):
                            return
            except (RedisError, OperationalError, OSError) as error:
                _logger.warning("%s missed: %r; trying again in %s s", self.what, error, self.interval)
                stopped.wait(self.interval)


class HeldTasks(Beating):
    """Renews this worker's hold on its tasks."""

    what = "visibility heartbeat"
    interval = celery_settings.visibility_heartbeat

    def stop(self, consumer: Any) -> None:
        """Stop the thread, but for a worker that is told to stop: it holds what it still runs until its process ends."""
        if _state.should_stop is None and _state.should_terminate is None:
            super().stop(consumer)

    def beat(self, channel: Any) -> None:
        """Renew the hold."""
        renew(channel)


def renew(channel: Any) -> None:
    """Put off the redelivery of every task that this worker holds."""
    tags = dict.fromkeys(_held_tags(), time.time())
    if tags:
        # XX: a task acknowledged in the meantime must not come back.
        channel.client.zadd(channel.unacked_index_key, tags, xx=True)


def _held_tags() -> list[str]:
    """Delivery tags of all tasks that this worker got and has not acknowledged, those with a countdown included."""
    while True:
        try:
            held = {*_state.reserved_requests, *_state.active_requests, *_state.scheduled_requests}
        except RuntimeError:
            # The consumer's thread changed a set while it was read.
            continue
        return [request.message.delivery_tag for request in held]
