"""The visibility heartbeat: while a worker is alive, the broker does not redeliver the tasks that it has not acknowledged.

Redis does not notice that a consumer has died: kombu redelivers a task that has been unacknowledged for longer than the
visibility timeout. As a live worker renews that time, the timeout is about dead workers, not about long tasks or countdowns.
"""

from typing import Any

from celery.worker import state

from app.core.config.celery import celery_settings
from app.worker.heartbeat import HeartbeatThread
from app.worker.transport_scripts import RENEW

_state: Any = state


class VisibilityRenewal(HeartbeatThread):
    """Renew the visibility timeout of every task that this worker has not acknowledged."""

    label = "visibility heartbeat"
    interval = celery_settings.visibility_heartbeat

    def stop(self, consumer: Any) -> None:
        """Stop the thread, except in a graceful shutdown: the worker still runs tasks until its process ends."""
        if _state.should_stop is None and _state.should_terminate is None:
            super().stop(consumer)

    def beat(self, channel: Any) -> None:
        """Renew the visibility timeout."""
        renew(channel)


def renew(channel: Any) -> None:
    """Restart the visibility timeout of every task that this worker has not acknowledged."""
    tags = _unacknowledged_tags()
    if tags:
        # By Redis's clock: the clocks of hosts differ.
        channel.client.register_script(RENEW)(keys=[channel.unacked_index_key], args=tags)


def _unacknowledged_tags() -> list[str]:
    """Return the delivery tags of all tasks that this worker has not acknowledged, those with a countdown included."""
    while True:
        try:
            requests = {*_state.reserved_requests, *_state.active_requests, *_state.scheduled_requests}
        except RuntimeError:
            # The consumer's thread changed a set while it was read.
            continue
        return [request.message.delivery_tag for request in requests]
