"""Configure beat to use redbeat's scheduler."""

from celery import current_app


def connect() -> None:
    """Set Celery's `beat_scheduler`."""
    current_app.conf.beat_scheduler = "app.features.redbeat.scheduler:Scheduler"
