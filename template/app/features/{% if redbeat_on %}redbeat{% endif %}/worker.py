"""Makes beat use redbeat's scheduler."""

from celery import current_app


def connect() -> None:
    """Configure the scheduler."""
    current_app.conf.beat_scheduler = "app.features.redbeat.scheduler:Scheduler"
