"""Redelivery: how often a task may be redelivered, when a message is requeued, and which deliveries do not count.

Redis redelivers the task of a dead process or worker (`visibility`). Each such delivery counts, up to a limit. A graceful
shutdown (`shutdown`) requeues what it cannot finish, which does not count. Messages are requeued too when the end of a task
cannot be stored (`result_backend`), its retry cannot be queued (`task`) or its task is unknown (`unknown_tasks`).
"""

from collections.abc import Callable, Iterable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.app.trace import TraceInfo, trace_ok_t
from celery.exceptions import Reject, TimeLimitExceeded
from celery.worker.request import Request

from app.core.config.celery import celery_settings
from app.worker.broker import results_client

COUNTED_FOR = 86400
"""Seconds after the last redelivery when the count is forgotten."""


class RedeliveryLimitExceeded(Exception):
    """The task's process has died too often; the task is not run again."""


def check_limit(task: Any, redeliveries: int) -> None:
    """Return if a task may run that was redelivered so often.

    Raises:
        RedeliveryLimitExceeded: it was redelivered more than `CELERY_MAX_REDELIVERIES` times.
    """
    limit = celery_settings.max_redeliveries
    if redeliveries > limit:
        raise RedeliveryLimitExceeded(
            f"{task.name} was redelivered {redeliveries} times, as its worker died each time; "
            f"CELERY_MAX_REDELIVERIES={limit} allows no more"
        )


def key(task_id: str) -> str:
    """Return the key of a task's count."""
    return f"redelivered:{task_id}"


def count_redelivery(task_id: str) -> int:
    """Count one more redelivery of the task and return how many there were.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return _add_redeliveries([task_id], 1)[0]


def excuse_redeliveries(task_ids: Iterable[str]) -> None:
    """Do not count the next redelivery of each task: the task has not caused it.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    _add_redeliveries(task_ids, -1)


def _add_redeliveries(task_ids: Iterable[str], number: int) -> list[int]:
    with results_client().pipeline() as pipe:
        for task_id in task_ids:
            pipe.incrby(key(task_id), number)
            pipe.expire(key(task_id), COUNTED_FOR)
        return [int(count) for count in pipe.execute()[::2]]


class RequeuingRequest(Request):
    """A request whose message is requeued if the worker's main process cannot store how its task ended."""

    _is_storing = False

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """Store the failure, then acknowledge: Celery acknowledges first."""
        fail = super().on_failure

        def store() -> None:
            fail(exc_info, *args, **kwargs)
            if self._acknowledge_later:
                self.before_acknowledging(exc_info.exception)

        self._store_or_requeue(store)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Store the timeout; see the class."""
        time_out = super().on_timeout

        def store() -> None:
            time_out(soft, timeout)
            if self._acknowledge_later:
                self.before_acknowledging(TimeLimitExceeded(timeout))

        self._store_or_requeue(store)

    def before_acknowledging(self, error: BaseException) -> None:
        """Do what is to be done before the message of a task that raised is acknowledged.

        Raises:
            celery.exceptions.Reject: it cannot be done now; the message is requeued.
        """

    def _announce_revoked(self, *args: Any, **kwargs: Any) -> None:
        self._store_or_requeue(super()._announce_revoked, *args, **kwargs)

    def acknowledge(self) -> None:
        """Acknowledge the message, or leave that to `_store_or_requeue`."""
        if self._is_storing:
            self._acknowledge_later = True
        else:
            super().acknowledge()

    def _store_or_requeue(self, handle: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if self._is_storing:
            handle(*args, **kwargs)
            return
        self._is_storing, self._acknowledge_later = True, False
        try:
            handle(*args, **kwargs)
        except Reject as error:
            self.reject(requeue=error.requeue)
        finally:
            self._is_storing = False
        if self._acknowledge_later:
            self.acknowledge()


def return_rejection(tracer: Callable[..., Any]) -> Callable[..., Any]:
    """Return Celery's tracer of a task with a rejection as its outcome: pools other than prefork do not forward exceptions."""

    def trace(*args: Any, **kwargs: Any) -> Any:
        try:
            return tracer(*args, **kwargs)
        except Reject as error:
            return trace_ok_t(ExceptionInfo(internal=True), TraceInfo("REJECTED", error), None, None)

    return trace
