"""Reports what tasks and the scheduler raise."""

from celery.signals import beat_init, celeryd_init
from sentry_sdk.integrations.celery import CeleryIntegration

from app.features.error_reports import reporting


def connect() -> None:
    """Start with the worker, before its tasks are prepared, and with beat."""
    celeryd_init.connect(_start, weak=False)
    beat_init.connect(_start, weak=False)


def _start(**_: object) -> None:
    reporting.start(CeleryIntegration(propagate_traces=False))
