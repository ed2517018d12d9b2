"""What a worker does with messages that it cannot run: its main process outlives every one of them.

A task that this worker does not know may be known to the next: while a release is rolled out, workers of both are there. Its
message waits and goes back to its queue for `CELERY_UNKNOWN_TASK_WAIT` seconds. Everything else that cannot be run is put aside.
"""

from collections.abc import Callable
from typing import Any

import structlog
from celery import bootsteps, current_app, signals
from celery.app.task import Context
from celery.exceptions import NotRegistered, Reject
from celery.worker import state
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.worker.dead_letters import put_aside

PAUSE = 1.0
"""Seconds between two looks at a message of an unknown task."""

_OUTAGES = (RedisError, OperationalError, OSError, Reject)
_ID_LENGTH = 155
_logger = structlog.get_logger("app.worker")
_state: Any = state


class MessageGuard(bootsteps.Step):
    """Stands between a worker's consumer and the messages that it gets."""

    def __init__(self, consumer: Any, **options: object) -> None:
        super().__init__(consumer, **options)
        self._consumer = consumer
        make_handler = consumer.create_task_handler
        consumer.create_task_handler = lambda *args, **kwargs: self._guarding(make_handler(*args, **kwargs))
        consumer.on_unknown_task = self._on_unknown_task
        consumer.on_unknown_message = lambda _body, message: self._fail(message, ValueError("no task is named"))
        consumer.on_invalid_task = lambda _body, message, error: self._fail(message, error)
        consumer.on_decode_error = self._fail
        worker = consumer.controller
        process = worker._process_task  # noqa: SLF001
        worker._process_task = lambda request: self._process(process, request)  # noqa: SLF001

    def _guarding(self, handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def guarded(message: Any) -> Any:
            try:
                return handle(message)
            except (*_OUTAGES, MemoryError):
                raise
            # Whatever a message can bring about: the next one must find this process alive.
            except Exception as error:  # noqa: BLE001
                self._fail(message, error)

        return guarded

    def _process(self, process: Callable[[Any], Any], request: Any) -> None:
        """Hand a task to the pool."""
        try:
            process(request)
        except (*_OUTAGES, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001
            release = getattr(self._consumer.controller, "_quick_release", None)
            if release is not None:
                release()
            _state.task_ready(request)
            self._fail(request.message, error)

    def _fail(self, message: Any, error: BaseException) -> None:
        """End a message's task as FAILURE, and put the message aside."""
        try:
            headers = message.headers if isinstance(message.headers, dict) else {}
            task_id = headers.get("id")
            if isinstance(task_id, str) and 0 < len(task_id) <= _ID_LENGTH:
                current_app.backend.mark_as_failure(task_id, _without_data(error), request=_request(message))
            put_aside(message, error)
        except _OUTAGES as outage:
            # Not acknowledged: it is delivered again after the visibility timeout.
            _logger.error("message_not_put_aside", error=repr(outage))

    def _on_unknown_task(self, _body: Any, message: Any, error: BaseException) -> None:
        name, task_id = message.headers["task"], message.headers.get("id")
        try:
            waited = _waited(message.channel.client, task_id)
        except RedisError as outage:
            _logger.warning("unknown_task_not_counted", task=name, task_id=task_id, error=repr(outage))
            waited = 0.0
        if waited < celery_settings.unknown_task_wait:
            _logger.warning("unknown_task_requeued", task=name, task_id=task_id, waited=round(waited, 1))
            # As a task with a countdown: what waits must not keep this worker from what it knows.
            self._consumer.qos.increment_eventually()
            self._consumer.timer.call_after(PAUSE, self._requeue, (message,))
            return
        self._fail(message, NotRegistered(name))
        signals.task_unknown.send(sender=self._consumer, message=message, exc=error, name=name, id=task_id)

    def _requeue(self, message: Any) -> None:
        self._consumer.qos.decrement_eventually()
        if not message.acknowledged:
            message.requeue()


def _waited(client: Any, task_id: object) -> float:
    """Return the seconds since a worker first met this unknown task; the clock is Redis's."""
    key = f"unknown:{task_id}"
    now = client.time()[0]
    client.set(key, now, nx=True, ex=86400)
    return float(now - int(client.get(key) or now))


def _without_data(error: BaseException) -> BaseException:
    """Return an error without what it may quote of the message."""
    if type(error) is NotRegistered:
        return NotRegistered(error.args[0])
    return ValueError(f"the message cannot be run ({type(error).__name__}); it is kept in dead_letters")


def _request(message: Any) -> Context:
    """Return what is known of the task, with the workflow that it is part of where the body can be read."""
    try:
        embed = message.payload[2]
    except Exception:  # noqa: BLE001
        embed = None
    return Context({**message.headers, **(embed if isinstance(embed, dict) else {}), "delivery_info": {}})
