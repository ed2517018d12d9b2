"""One delivery of a task, as the worker's main process follows it."""

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import Ignore, Reject, Retry, Terminated, WorkerLostError
from redis.exceptions import RedisError

from app.core.logging import error_repr
from app.worker import dead_letters, waiting
from app.worker.redelivery import RedeliveryLimitExceeded, RequeuingRequest
from app.worker.time_limits import enforceable_limits

_NO_FAILURES = (Ignore, Reject, Retry, Terminated)
_LOST = (WorkerLostError, SystemExit, KeyboardInterrupt)


class AppRequest(RequeuingRequest):
    """The request of every `AppTask`: its limits fit together, it is requeued if its end cannot be stored, and its message becomes a
    dead letter if it was redelivered too often or has `dead_letter`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        request: Any = self
        hard, soft = request.time_limits
        request.time_limits = enforceable_limits(hard or self.task.time_limit, soft or self.task.soft_time_limit)

    def before_acknowledging(self, error: BaseException) -> None:
        """Store the dead letter: this process has the message, that of the task only its arguments."""
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, _NO_FAILURES):
            return
        request: Any = self
        if not (request.task.dead_letter or isinstance(error, RedeliveryLimitExceeded)):
            return
        if isinstance(error, _LOST) and request._success_was_stored():  # noqa: SLF001
            return
        try:
            dead_letters.keep(request.message, error)
        except RedisError as outage:
            raise Reject(f"the dead letter could not be stored: {error_repr(outage)}", requeue=True) from outage

    def _announce_revoked(self, *args: Any, **kwargs: Any) -> None:
        super()._announce_revoked(*args, **kwargs)
        waiting.end(self)
