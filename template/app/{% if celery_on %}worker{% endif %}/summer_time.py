"""Entries of the schedule that do not run in the hour that comes twice when summer time ends."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from celery.schedules import crontab


def skipping(schedule: Mapping[str, Any], zone: tzinfo, now: datetime | None = None) -> list[str]:
    """Return the names of the crontab entries that run several times an hour, where the zone's clocks are put back."""
    if not _is_put_back(zone, now or datetime.now(UTC)):
        return []
    entries = {
        name: entry["schedule"] if isinstance(entry, Mapping) else entry.schedule for name, entry in schedule.items()
    }
    return sorted(name for name, when in entries.items() if isinstance(when, crontab) and len(when.minute) > 1)


def _is_put_back(zone: tzinfo, now: datetime) -> bool:
    offsets = [(now + timedelta(days=7 * week)).astimezone(zone).utcoffset() for week in range(53)]
    return len(set(offsets)) > 1
