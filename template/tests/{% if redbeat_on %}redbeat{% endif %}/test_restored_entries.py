"""Schedule entries of the code that are missing in Redis are restored."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery.schedules import schedule
from redbeat.schedulers import get_redis

from app.core.celery import celery_app
from app.features.redbeat.scheduler import Scheduler

ENTRY = {"task": "process_task", "schedule": 86400.0, "args": ({},), "options": {"queue": "default"}}
SCHEDULE = "redbeat::schedule"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a function that returns a scheduler with these entries, which has the lock."""
    made: list[Any] = []

    def scheduler(entries: dict[str, Any]) -> Any:
        monkeypatch.setitem(celery_app.conf, "beat_schedule", entries)
        made.append(Scheduler(app=celery_app, lazy=False))
        return made[-1]

    yield scheduler
    client = get_redis(celery_app)
    for one in made:
        one.close()
    client.delete("redbeat:daily", SCHEDULE, "redbeat::statics", "redbeat::lock")


def test_entries_added_in_redis_run_if_the_code_has_none(make: Any) -> None:
    scheduler = make({})
    fired: list[str] = []
    scheduler.maybe_due = lambda entry, **_: fired.append(entry.name)
    entry = scheduler.Entry(name="daily", task="process_task", schedule=schedule(86400), app=celery_app)
    entry.last_run_at = None
    entry.save()
    scheduler.tick()
    assert fired == ["daily"]


def test_a_disabled_entry_stays_disabled(make: Any) -> None:
    scheduler = make({"daily": ENTRY})
    client = get_redis(celery_app)
    definition = json.loads(client.hget("redbeat:daily", "definition"))
    client.hset("redbeat:daily", "definition", json.dumps({**definition, "enabled": False}))
    client.zrem(SCHEDULE, "redbeat:daily")
    scheduler.tick()
    assert client.zscore(SCHEDULE, "redbeat:daily") is not None
    assert json.loads(client.hget("redbeat:daily", "definition"))["enabled"] is False
