"""The visibility heartbeat: a worker says every few seconds that it is there and still holds its tasks.

Redis has no notion of a consumer that went away: kombu gives a task to another worker once it is held for longer than the
visibility timeout. With the heartbeat that timeout is about dead workers, not about long tasks or countdowns.
"""

import time
from typing import Any

from celery import bootsteps
from celery.worker import state

from app.core.config import settings
from app.worker.background import Repeating

_state: Any = state


class HeldTasks(bootsteps.StartStopStep):
    """Renews this worker's hold on its tasks."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_: object) -> None:
        self._renewing = Repeating("visibility heartbeat", settings.celery.visibility_heartbeat, renew)

    def start(self, consumer: Any) -> None:
        """Start renewing; called again after a lost connection."""
        self._renewing.start(consumer.app)

    def stop(self, consumer: Any) -> None:
        """Stop renewing, but for a worker that is told to stop: it holds what it still runs until its process ends."""
        if _state.should_stop is None and _state.should_terminate is None:
            self._renewing.stop()

    shutdown = stop


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
