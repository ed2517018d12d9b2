"""Metrics of tasks, recorded in the worker's main process.

The main process accepts each task, gets its outcome and survives a task that kills its process. So no pool needs the
shared files of Prometheus's multiprocess mode.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, WorkerLostError
from celery import current_app
from celery.exceptions import Ignore, Reject, Retry
from celery.signals import worker_ready, worker_shutdown
from prometheus_client import Counter, Histogram

from app.features.metrics.config import metrics_settings
from app.features.metrics.exposition import serving
from app.features.metrics.tasks import last_success
from app.worker.logs import queue_wait
from app.worker.redelivery import RedeliveryLimitExceeded
from app.worker.request import AppRequest
from app.worker.task import AppTask

_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_OUTCOMES = ("succeeded", "failed", "given_up", "retried", "rejected", "ignored", "revoked", "lost")

_tasks = Counter(
    "celery_tasks",
    "Task runs by outcome. given_up: redelivered more than CELERY_MAX_REDELIVERIES times; lost: the process died.",
    ["task", "outcome"],
)
_duration = Histogram("celery_task_duration_seconds", "Duration of a task run.", ["task"], buckets=_SECONDS)
_wait = Histogram(
    "celery_task_queue_wait_seconds",
    "Time from publishing a task, or from its ETA, to its start.",
    ["queue"],
    buckets=_SECONDS,
)
_server = ExitStack()


class MeasuredRequest(AppRequest):
    """Celery's request for one delivery of a task, in the main process."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Wrap the subclass that Celery creates for each task, because its `on_success` does not call the parent's."""
        super().__init_subclass__(**kwargs)
        cls.on_success = _measured(cls.on_success)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Record how long the task waited."""
        wait = queue_wait(self._context)
        if wait is not None:
            _wait.labels((self.delivery_info or {}).get("routing_key") or "none").observe(wait)
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Count a run that did not succeed, including retries and processes killed at the hard time limit."""
        _tasks.labels(self.name, outcome(exc_info.exception)).inc()
        return super().on_failure(exc_info, *args, **kwargs)


def outcome(error: BaseException) -> str:
    """Return the outcome of a run that raised `error`."""
    match error.exc if isinstance(error, ExceptionWithTraceback) else error:
        case RedeliveryLimitExceeded():
            return "given_up"
        case Retry():
            return "retried"
        case Reject():
            return "rejected"
        case Ignore():
            return "ignored"
        case Terminated():
            return "revoked"
        case WorkerLostError() | SystemExit() | KeyboardInterrupt():
            return "lost"
        case _:
            return "failed"


def connect() -> None:
    """Measure every task, and serve the metrics when the worker is ready."""
    AppTask.Request = f"{__name__}:{MeasuredRequest.__name__}"
    last_success.connect()
    worker_ready.connect(_serve, weak=False)
    worker_shutdown.connect(_stop, weak=False)


def _measured(on_success: Callable[..., Any]) -> Callable[..., Any]:
    def measured(self: Any, result: tuple[Any, Any, float | None], **kwargs: Any) -> Any:
        failed, _, seconds = result
        if seconds is not None:
            _duration.labels(self.name).observe(seconds)
        if not failed:
            _tasks.labels(self.name, "succeeded").inc()
        return on_success(self, result, **kwargs)

    return measured


def _serve(**_: object) -> None:
    # Only once: Celery sends the signal again after each reconnect.
    worker_ready.disconnect(_serve)
    # `rate` needs a start value of 0: otherwise the first failure of a task would not be visible.
    for name in current_app.tasks:
        for result in _OUTCOMES:
            _tasks.labels(name, result)
    _server.enter_context(serving(metrics_settings.worker_port))


def _stop(**_: object) -> None:
    _server.close()
