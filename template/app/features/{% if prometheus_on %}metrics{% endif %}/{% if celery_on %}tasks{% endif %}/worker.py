"""Metrics of tasks, kept by the worker's main process: it accepts each task, learns how each ended, and alone outlives one
that kills its process. So there are no files to share between processes, whatever the pool.
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
    "Runs of tasks by how they ended. given_up: redelivered more often than CELERY_MAX_REDELIVERIES; lost: the process died.",
    ["task", "outcome"],
)
_duration = Histogram("celery_task_duration_seconds", "How long a run took.", ["task"], buckets=_SECONDS)
_wait = Histogram(
    "celery_task_queue_wait_seconds",
    "From when a task was published, or was to run, to its start.",
    ["queue"],
    buckets=_SECONDS,
)
_server = ExitStack()


class MeasuredRequest(AppRequest):
    """Celery's account of one delivery of a task, in the main process."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Measure in the subclass that Celery makes for each task, whose `on_success` does not call its parent's."""
        super().__init_subclass__(**kwargs)
        cls.on_success = _measured(cls.on_success)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note how long it waited."""
        wait = queue_wait(self._context)
        if wait is not None:
            _wait.labels((self.delivery_info or {}).get("routing_key") or "none").observe(wait)
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Count what did not succeed: retries, and processes killed at the hard time limit, included."""
        _tasks.labels(self.name, outcome(exc_info.exception)).inc()
        return super().on_failure(exc_info, *args, **kwargs)


def outcome(error: BaseException) -> str:
    """Return how a run ended that raised `error`."""
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
    """Measure every task, and serve the metrics as soon as the worker consumes."""
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
    # Once: the signal comes again after each lost connection.
    worker_ready.disconnect(_serve)
    # A rate needs a zero to start from: otherwise the first failure of a task would not show.
    for name in current_app.tasks:
        for how in _OUTCOMES:
            _tasks.labels(name, how)
    _server.enter_context(serving(metrics_settings.worker_port))


def _stop(**_: object) -> None:
    _server.close()
