"""Messages that no worker can run: their tasks fail, and they go to the dead-letter list. The worker survives each of them."""

from collections.abc import Callable
from typing import Any

import structlog
from celery import bootsteps, current_app
from celery.app.task import Context
from celery.exceptions import NotRegistered, Reject
from celery.worker import state

from app.core.logging import error_repr
from app.worker import dead_letters
from app.worker.broker import OUTAGES

_MAX_ID_LENGTH = 155
_RAISED = (*OUTAGES, Reject, MemoryError)
_logger = structlog.get_logger("app.worker")
_state: Any = state


class PoisonMessageHandler(bootsteps.Step):
    """Catches every error that a message causes in the worker's main process."""

    def __init__(self, consumer: Any, **options: object) -> None:
        super().__init__(consumer, **options)
        self._worker = consumer.controller
        create_handler = consumer.create_task_handler
        consumer.create_task_handler = lambda *args, **kwargs: _guarded(create_handler(*args, **kwargs))
        consumer.on_unknown_message = lambda _body, message: fail(message, ValueError("it names no task"))
        consumer.on_invalid_task = lambda _body, message, error: fail(message, error)
        consumer.on_decode_error = fail
        process = self._worker._process_task  # noqa: SLF001
        self._worker._process_task = lambda request: self._process(process, request)  # noqa: SLF001

    def _process(self, process: Callable[[Any], Any], request: Any) -> None:
        """Pass a task to the pool."""
        try:
            process(request)
        except _RAISED:
            raise
        except Exception as error:  # noqa: BLE001
            release = getattr(self._worker, "_quick_release", None)
            if release is not None:
                release()
            _state.task_ready(request)
            fail(request.message, error)


def fail(message: Any, error: BaseException) -> None:
    """Store FAILURE for a message's task, and the message in the dead-letter list."""
    try:
        headers = message.headers if isinstance(message.headers, dict) else {}
        task_id = headers.get("id")
        if isinstance(task_id, str) and 0 < len(task_id) <= _MAX_ID_LENGTH:
            current_app.backend.mark_as_failure(task_id, _without_data(error), request=_request(message))
        dead_letters.store(message, error)
    except (*OUTAGES, Reject) as outage:
        # Not acknowledged: it is redelivered after the visibility timeout.
        _logger.error("message_not_dead_lettered", error=error_repr(outage))


def _guarded(handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def guarded(message: Any) -> Any:
        try:
            return handle(message)
        except _RAISED:
            raise
        # Whatever a message causes: this process must live to handle the next one.
        except Exception as error:  # noqa: BLE001
            fail(message, error)

    return guarded


def _without_data(error: BaseException) -> BaseException:
    """Return an error without what it may quote from the message."""
    if type(error) is NotRegistered:
        return NotRegistered(error.args[0])
    return ValueError(f"the message cannot be run ({type(error).__name__}); it is a dead letter")


def _request(message: Any) -> Context:
    """Return what is known of the task, with its workflow if the body can be read."""
    try:
        embed = message.payload[2]
    except Exception:  # noqa: BLE001
        embed = None
    return Context({**message.headers, **(embed if isinstance(embed, dict) else {}), "delivery_info": {}})
