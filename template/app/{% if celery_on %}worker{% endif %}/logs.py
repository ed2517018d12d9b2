"""A log line when a task starts and when it ends, with how long it waited in its queue and how long it ran."""

import logging
import time
from datetime import datetime
from typing import Any

import structlog
from celery import current_app
from celery.signals import before_task_publish, setup_logging, task_postrun, task_prerun

from app.core.logging import configure_logging

_logger = structlog.get_logger("app.worker")


def connect() -> None:
    """Have Celery log through the application's configuration, and log when each task starts and ends."""
    setup_logging.connect(_configure, weak=False)
    before_task_publish.connect(_add_headers, weak=False)
    task_prerun.connect(_log_start, weak=False)
    task_postrun.connect(_log_end, weak=False)


def _configure(**_: object) -> None:
    configure_logging()


def _add_headers(sender: str, headers: dict[str, Any], **_: object) -> None:
    headers["published_at"] = time.time()
    if getattr(current_app.tasks.get(sender), "redact_arguments", False):
        headers.update(argsrepr="(hidden)", kwargsrepr="{hidden}")


def queue_wait(request: Any) -> float | None:
    """Return the seconds since a task was published, or since its ETA; None if unknown."""
    published: float | None = request.get("published_at")
    if published is None:
        return None
    if request.eta:
        published = max(published, datetime.fromisoformat(request.eta).timestamp())
    return round(max(0.0, time.time() - published), 3)


def _level(task: Any) -> int:
    return getattr(task, "log_level", logging.INFO)


def _log_start(task_id: str, task: Any, **_: object) -> None:
    wait = queue_wait(task.request)
    # In the request and not by id: in the threads pool the next attempt may start before this one has ended.
    task.request.measured = time.perf_counter(), wait
    structlog.contextvars.bind_contextvars(task=task.name, task_id=task_id)
    _logger.log(_level(task), "task_started", queue_wait=wait, retries=task.request.retries)


def _log_end(task: Any, state: str | None = None, **_: object) -> None:
    start, wait = task.request.measured
    run_time = round(time.perf_counter() - start, 4)
    _logger.log(_level(task), "task_finished", state=state, queue_wait=wait, run_time=run_time)
    structlog.contextvars.unbind_contextvars("task", "task_id")
