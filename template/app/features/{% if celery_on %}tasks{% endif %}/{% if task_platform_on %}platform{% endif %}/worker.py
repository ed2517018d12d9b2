"""Let workers follow which queues are paused, and report what they consume and run."""

from typing import Any

from celery import current_app

from app.worker.paused_queues import PausedQueues


def connect() -> None:
    """Add the step of the worker's consumer."""
    app: Any = current_app
    app.steps["consumer"].add(PausedQueues)
