"""Paused queues: workers take no messages from them, also workers that start later.

The names are in the broker's database. Each worker reads them before it consumes, when a broadcast tells it to, and every
`liveness.INTERVAL` seconds in case that was lost; it then stops consuming as Celery's `cancel_consumer` does, with either transport. In
its report it has what it consumes (`worker_reports`), so that it is known which workers have applied a change.

What a worker has already taken runs: a pause is not a cancellation.
"""

import threading
from datetime import UTC, datetime
from typing import Any

import structlog
from celery import current_app
from celery.worker.control import control_command

from app.core.logging import error_repr
from app.worker import worker_reports
from app.worker.broker import OUTAGES, lua_script
from app.worker.flow_control import client as shared_client
from app.worker.heartbeat import HeartbeatThread
from app.worker.liveness import INTERVAL

KEY = "queues/paused"
_COMMAND = "apply_paused_queues"
_logger = structlog.get_logger("app.worker")

# Also in a full Redis: a pause may be what it needs.
_PAUSE = lua_script("#!lua flags=allow-oom\nredis.call('HSETNX', KEYS[1], ARGV[1], redis.call('TIME')[1])")
_RESUME = lua_script("#!lua flags=allow-oom\nredis.call('HDEL', KEYS[1], ARGV[1])")


class PausedQueues(HeartbeatThread):
    """Consumes no queue that is paused, and reports what this worker consumes and runs."""

    label = "paused queues"
    interval = INTERVAL

    def __init__(self, consumer: Any, **options: object) -> None:
        super().__init__(consumer, **options)
        self._consumer = consumer
        self._paused: set[str] = set()
        """The queues that this step has stopped consuming."""
        self._reporting = threading.Lock()
        consumer.paused_queues = self

    def start(self, consumer: Any) -> None:
        """Leave out the queues that are paused; called again after a lost connection, each time before the worker consumes."""
        with consumer.connection.default_channel.conn_or_acquire() as client:
            self._pause(read(client))
        super().start(consumer)

    def beat(self, channel: Any) -> None:
        """Report what this worker consumes, and have its event loop apply what has changed."""
        if self._is_outdated(read(channel.client)):
            self.apply_soon()
        self._report(channel.client)

    def apply_soon(self) -> None:
        """Apply what has changed, in the consumer's thread."""
        self._consumer.call_soon(self._apply)

    def _apply(self) -> None:
        if self._consumer.task_consumer is None:
            return
        try:
            # Read here: of two changes, the later one is applied last.
            paused = read(shared_client())
            self._pause(paused)
            for queue in sorted(self._paused - set(paused)):
                self._consumer.add_task_queue(queue)
                self._paused.discard(queue)
                _logger.info("queue_resumed", queue=queue)
            self._report(shared_client())
        except OUTAGES as error:
            _logger.warning("paused_queues_not_applied", error=error_repr(error), action="tried again")

    def _pause(self, paused: dict[str, datetime]) -> None:
        for queue in sorted(self._consumed() & set(paused)):
            self._consumer.cancel_task_queue(queue)
            self._paused.add(queue)
            _logger.info("queue_paused", queue=queue)

    def _is_outdated(self, paused: dict[str, datetime]) -> bool:
        return bool(self._consumed() & set(paused) or self._paused - set(paused))

    def _consumed(self) -> set[str]:
        return set(self._consumer.app.amqp.queues.consume_from) - self._paused

    def _report(self, client: Any) -> None:
        # One after the other: the last report must not be the older one.
        with self._reporting:
            worker_reports.send(client, self._consumer, consumes=self._consumed(), paused=set(self._paused))


@control_command(name=_COMMAND)
def _apply_paused_queues(state: Any, **_: object) -> Any:
    """Apply which queues are paused."""
    state.consumer.paused_queues.apply_soon()
    return {"ok": _COMMAND}


def read(client: Any) -> dict[str, datetime]:
    """Return the paused queues, and since when each is; `client` is one of the broker's database.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return {name.decode(): datetime.fromtimestamp(int(since), UTC) for name, since in client.hgetall(KEY).items()}


def pause(client: Any, queue: str) -> None:
    """Pause a queue, and tell the workers.

    Raises:
        redis.exceptions.RedisError: Redis refused it, or its answer was lost.
    """
    _PAUSE(client, [KEY], [queue])
    _broadcast(queue)


def resume(client: Any, queue: str) -> None:
    """Let workers consume a queue again, and tell them; see `pause`."""
    _RESUME(client, [KEY], [queue])
    _broadcast(queue)


def _broadcast(queue: str) -> None:
    try:
        current_app.control.broadcast(_COMMAND)
    except OUTAGES as error:
        # It is stored: each worker applies it with its next report.
        _logger.warning("paused_queues_not_broadcast", queue=queue, error=error_repr(error))
