"""What beat queues expires instead of piling up."""

from datetime import UTC, datetime
from typing import Any

import pytest
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import crontab

from app.core.celery import celery_app
from app.tasks.process_task import process_task
from app.worker.beat import HeartbeatScheduler


class _Scheduler(HeartbeatScheduler, Scheduler):
    """Celery's simplest, in which what is queued can be seen."""


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that lets an entry be due, and returns the options that its task is queued with."""
    sent: dict[str, Any] = {}
    monkeypatch.setattr(process_task, "apply_async", lambda *_, **options: sent.update(options))
    scheduler = _Scheduler(celery_app, lazy=True)

    def send(schedule: Any, **options: Any) -> dict[str, Any]:
        sent.clear()
        written = {"queue": "default", **options}
        entry = ScheduleEntry("x", process_task.name, schedule=schedule, options=written, app=celery_app)
        scheduler.apply_async(entry, advance=False)
        assert written == {"queue": "default", **options}, "what the schedule holds must stay as it was written"
        return sent

    return send


def test_an_interval_expires_when_the_next_is_due(queued: Any) -> None:
    assert queued(3600.0)["expires"] == pytest.approx(3600, abs=5)
    # Never before a worker can take it.
    assert queued(0.1)["expires"] == 1


def test_a_crontab_expires_when_the_next_is_due(queued: Any) -> None:
    now = datetime.now(UTC)
    seconds_left = 3600 - now.minute * 60 - now.second
    assert queued(crontab(minute=0))["expires"] % 3600 == pytest.approx(seconds_left % 3600, abs=5)


def test_the_options_of_an_entry_take_precedence(queued: Any) -> None:
    options = queued(3600.0, expires=9, queue="long")
    assert (options["expires"], options["queue"]) == (9, "long")
    assert queued(3600.0, expires=None)["expires"] is None
