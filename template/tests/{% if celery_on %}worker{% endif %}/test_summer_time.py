"""Which entries are warned of: those that skip the hour that comes twice."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab, schedule

from app.worker.summer_time import skipping

NOW = datetime(2026, 11, 27, tzinfo=UTC)
ENTRIES = {
    "often": {"schedule": crontab(minute="*/15")},
    "hourly": {"schedule": crontab(minute=0)},
    "daily": {"schedule": crontab(hour=3, minute=0)},
    "seconds": {"schedule": 900.0},
    "interval": {"schedule": schedule(900)},
}


@pytest.mark.parametrize(
    ("zone", "names"), [("Europe/Berlin", ["often"]), ("America/New_York", ["often"]), ("UTC", []), ("Asia/Tokyo", [])]
)
def test_entries_of_several_times_an_hour_are_named_where_clocks_are_put_back(zone: str, names: list[str]) -> None:
    assert skipping(ENTRIES, ZoneInfo(zone), NOW) == names
