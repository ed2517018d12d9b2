"""beat's last runs outlive its file, and entries that cannot be queued are known."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.beat import SchedulingError

from app.core.celery import celery_app
from app.worker import last_runs, schedule_health
from app.worker.broker import broker_client
from app.worker.schedule import Scheduler

pytestmark = pytest.mark.anyio


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Give a schedule of the test's own."""
    own: dict[str, Any] = {
        "daily": {"task": "process_task", "schedule": 86400.0, "args": ({},), "options": {"queue": "default"}},
        "misspelled": {"task": "process_task", "schedule": 86400.0, "args": ({},), "options": {"queue": "defualt"}},
    }
    monkeypatch.setitem(celery_app.conf, "beat_schedule", own)
    yield own
    with broker_client() as client:
        client.delete(last_runs.KEY, schedule_health.KEY)


def _scheduler(folder: Path) -> Any:
    return Scheduler(app=celery_app, schedule_filename=str(folder / "schedule"), lazy=False)


def test_an_entry_of_a_day_runs_although_the_file_is_lost_daily(entries: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first = _scheduler(tmp_path / "first")
    assert not first.is_due(first.schedule["daily"]).is_due
    first.apply_async(first.schedule["daily"])
    first.close()
    last_runs.store("daily", datetime.now(UTC) - timedelta(hours=25))
    second = _scheduler(tmp_path / "second")
    assert second.is_due(second.schedule["daily"]).is_due
    second.apply_async(second.schedule["daily"])
    second.close()
    third = _scheduler(tmp_path / "first")
    assert not third.is_due(third.schedule["daily"]).is_due
    third.close()


def test_entries_that_are_not_in_the_schedule_any_more_are_deleted(entries: dict[str, Any]) -> None:
    last_runs.store("gone", datetime.now(UTC))
    last_runs.store("daily", datetime.now(UTC))
    assert set(last_runs.read(entries)) == {"daily"}
    assert set(last_runs.read(["gone", *entries])) == {"daily"}


async def test_an_entry_that_cannot_be_queued_is_not_ready(entries: dict[str, Any], tmp_path: Path) -> None:
    scheduler = _scheduler(tmp_path)
    await schedule_health.check()
    with pytest.raises(SchedulingError):
        scheduler.apply_async(scheduler.schedule["misspelled"])
    with pytest.raises(RuntimeError, match="misspelled"):
        await schedule_health.check()
    scheduler.schedule["misspelled"].options["queue"] = "default"
    scheduler.apply_async(scheduler.schedule["misspelled"])
    await schedule_health.check()
    scheduler.close()
