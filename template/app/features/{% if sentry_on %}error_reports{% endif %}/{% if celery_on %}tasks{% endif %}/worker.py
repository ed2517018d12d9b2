"""Report the exceptions of tasks and beat."""

from celery.signals import beat_init, celeryd_init
from sentry_sdk.integrations.celery import CeleryIntegration

from app.features.error_reports import reporting


def connect() -> None:
    """Start reporting when beat starts, and in the worker before Celery prepares its tasks."""
    celeryd_init.connect(_start, weak=False)
    beat_init.connect(_start, weak=False)


def _start(**_: object) -> None:
    reporting.start(CeleryIntegration(propagate_traces=False))
