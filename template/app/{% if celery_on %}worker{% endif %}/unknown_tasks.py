"""Tasks, and versions of tasks, that this worker does not know but the next may: in a rolling deployment, workers of two releases run.

Their messages are requeued for `CELERY_UNKNOWN_TASK_WAIT` seconds, then fail.
"""

from collections.abc import Callable
from typing import Any

import structlog
from celery import bootsteps, signals
from celery.exceptions import NotRegistered
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker import payload_versions
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
        create_handler = consumer.create_task_handler
        consumer.create_task_handler = lambda *args, **kwargs: self._handling_versions(create_handler(*args, **kwargs))

    def _handling_versions(self, handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
        tasks = self._consumer.app.tasks

        def handle_known(message: Any) -> Any:
            headers = message.headers if isinstance(message.headers, dict) else {}
            version = headers.get(payload_versions.HEADER)
            task = tasks.get(headers.get("task")) if version is not None else None
            if task is not None and payload_versions.is_newer(task, headers):
                error = NotRegistered(f"{task.name} of version {version}")
                return self._on_unknown_task(message.payload, message, error)
            return handle(message)

        return handle_known

    def _on_unknown_task(self, _body: Any, message: Any, error: BaseException) -> None:
        name, task_id = message.headers["task"], message.headers.get("id")
        try:
            waited = _seconds_since_first_seen(message.channel.client, task_id)
        except RedisError as outage:
            _logger.warning("unknown_task_not_counted", task=name, task_id=task_id, error=error_repr(outage))
            waited = 0.0
        if waited < celery_settings.unknown_task_wait:
            _logger.warning("unknown_task_requeued", task=name, task_id=task_id, waited=round(waited, 1))
            # As a task with a countdown: it must not keep this worker from the tasks that it knows.
            self._consumer.qos.increment_eventually()
            self._consumer.timer.call_after(PAUSE, self._requeue, (message,))
            return
        fail(message, error if type(error) is NotRegistered else NotRegistered(name))
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
