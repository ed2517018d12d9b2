"""Tasks that this worker does not know but the next may: during a rolling deployment, workers of two releases run.

Their messages are requeued for `CELERY_UNKNOWN_TASK_WAIT` seconds, then fail.
"""

from typing import Any

import structlog
from celery import bootsteps, signals
from celery.exceptions import NotRegistered
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.worker.poison_messages import fail

PAUSE = 1.0
"""Seconds until the message of an unknown task is requeued."""

_COUNTED_FOR = 86400
_logger = structlog.get_logger("app.worker")


class UnknownTaskHandler(bootsteps.Step):
    """Requeues the messages of unknown tasks, and fails them when they have waited too long."""

    def __init__(self, consumer: Any, **options: object) -> None:
        super().__init__(consumer, **options)
        self._consumer = consumer
        consumer.on_unknown_task = self._on_unknown_task

    def _on_unknown_task(self, _body: Any, message: Any, error: BaseException) -> None:
        name, task_id = message.headers["task"], message.headers.get("id")
        try:
            waited = _seconds_since_first_seen(message.channel.client, task_id)
        except RedisError as outage:
            _logger.warning("unknown_task_not_counted", task=name, task_id=task_id, error=repr(outage))
            waited = 0.0
        if waited < celery_settings.unknown_task_wait:
            _logger.warning("unknown_task_requeued", task=name, task_id=task_id, waited=round(waited, 1))
            # As a task with a countdown: it must not keep this worker from the tasks that it knows.
            self._consumer.qos.increment_eventually()
            self._consumer.timer.call_after(PAUSE, self._requeue, (message,))
            return
        fail(message, NotRegistered(name))
        signals.task_unknown.send(sender=self._consumer, message=message, exc=error, name=name, id=task_id)

    def _requeue(self, message: Any) -> None:
        self._consumer.qos.decrement_eventually()
        if not message.acknowledged:
            message.requeue()


def _seconds_since_first_seen(client: Any, task_id: object) -> float:
    """Return the seconds since a worker first received this unknown task, by Redis's clock."""
    key = f"unknown:{task_id}"
    now = client.time()[0]
    client.set(key, now, nx=True, ex=_COUNTED_FOR)
    return float(now - int(client.get(key) or now))
