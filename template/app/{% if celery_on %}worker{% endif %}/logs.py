"""A log line when a task ends, with how long it waited in its queue and how long it ran; at DEBUG also when it starts."""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from celery import current_app, states
from celery.signals import before_task_publish, setup_logging

from app.core.logging import configure_logging
from app.worker import correlation

_logger = structlog.get_logger("app.worker")


def connect() -> None:
    """Have Celery log through the application's configuration, and add to messages what the log lines need."""
    setup_logging.connect(_configure, weak=False)
    before_task_publish.connect(_add_headers, weak=False)


def _configure(**_: object) -> None:
    configure_logging()


def _add_headers(sender: str, headers: dict[str, Any], **_: object) -> None:
    headers["published_at"] = time.time()
    if getattr(current_app.tasks.get(sender), "redact_arguments", False):
        headers.update(argsrepr="(hidden)", kwargsrepr="{hidden}")


def queue_wait(request: Any) -> float | None:
    """Return the seconds since a task was published, or since its ETA; None if unknown."""
    published = request.get("published_at")
    # Other programs may have a header of this name.
    if not isinstance(published, int | float):
        return None
    eta = request.get("eta")
    if eta:
        published = max(published, datetime.fromisoformat(eta).timestamp())
    return round(max(0.0, time.time() - published), 3)


def log_end(task: Any, tracer: Callable[..., Any]) -> Callable[..., Any]:
    """Return Celery's tracer of a task with a log line; signals would take as long as the line."""
    level = getattr(task, "log_level", logging.INFO)

    def trace(task_id: str, args: Any, kwargs: Any, request: dict[str, Any]) -> Any:
        start, wait = time.perf_counter(), queue_wait(request)
        tokens = structlog.contextvars.bind_contextvars(**correlation.fields(request), task=task.name, task_id=task_id)
        attempt = (request.get("retries") or 0) + 1
        state = None
        try:
            _logger.debug("task_started", queue_wait=wait, attempt=attempt)
            ended = tracer(task_id, args, kwargs, request)
            state = ended.info.state if ended.info else states.SUCCESS
            return ended
        finally:
            _logger.log(
                level,
                "task_finished",
                state=state,
                queue=(request.get("delivery_info") or {}).get("routing_key"),
                queue_wait=wait,
                run_time=round(time.perf_counter() - start, 4),
                attempt=attempt,
            )
            structlog.contextvars.reset_contextvars(**tokens)

    return trace
