"""Whether a worker's consumer makes progress: after a lost connection it may be connected and yet consume nothing."""

import time
from typing import Any

from celery.concurrency.solo import TaskPool as SoloPool
from celery.utils.log import get_logger
from celery.worker import state

_logger = get_logger(__name__)
_state: Any = state


class ConsumerProgress:
    """Tells a worker that is stalled from one that is idle, busy or limited.

    Args:
        consumer: the worker's consumer.
        stalled_after: seconds without progress after which the worker counts as stalled.
    """

    def __init__(self, consumer: Any, stalled_after: float) -> None:
        self._consumer = consumer
        self._stalled_after = stalled_after
        self._received = 0
        self._last_turn = self._last_progress = time.monotonic()
        self._is_logged = False

    def start(self) -> None:
        """Start again: the worker has just connected."""
        self._last_turn = self._last_progress = time.monotonic()

    def loop_turned(self) -> None:
        """Record that the consumer's event loop is not stuck."""
        self._last_turn = time.monotonic()

    def is_stalled(self, channel: Any) -> bool:
        """Return whether the worker has made no progress for too long; `channel` is for counting the messages that wait."""
        now = time.monotonic()
        if self._makes_progress(channel, now):
            self._last_progress = now
        stalled = now - self._last_progress > self._stalled_after
        if stalled and not self._is_logged:
            _logger.error(
                "this worker is connected but consumes no messages: its heartbeat stops, so that it is restarted"
            )
        self._is_logged = stalled
        return stalled

    def _makes_progress(self, channel: Any, now: float) -> bool:
        received, self._received = self._received, _state.all_total_count[0]
        is_busy = bool(_state.active_requests)
        if is_busy and isinstance(self._consumer.pool, SoloPool):
            # The task blocks the event loop.
            self._last_turn = now
        if now - self._last_turn > self._stalled_after:
            return False
        if is_busy or received != self._received or self._is_limited():
            return True
        tasks = self._consumer.task_consumer
        # Of kombu's ways to count, the one that does not raise for an empty queue.
        waiting = any(channel._size(queue.name) for queue in tasks.queues)  # noqa: SLF001
        return not waiting and bool(tasks.channel.qos.can_consume())

    def _is_limited(self) -> bool:
        """Return whether it has a reason to consume nothing: as many countdowns as it may have, or a rate limit."""
        is_rate_limited = any(bucket and bucket.contents for bucket in self._consumer.task_buckets.values())
        limit = self._consumer.app.conf.worker_eta_task_limit
        return is_rate_limited or bool(limit and len(_state.scheduled_requests) >= limit)
