"""The data of a monthly report: the days of a month in the application's time zone, with values for each day."""

import calendar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql import ColumnElement

from app.core.config.celery import celery_settings

_Moment = InstrumentedAttribute[datetime] | ColumnElement[datetime]


@dataclass(frozen=True)
class Month:
    """A month in the time zone `zone`; the default is CELERY_TIMEZONE."""

    year: int
    month: int
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo(celery_settings.timezone))

    def edges(self) -> list[datetime]:
        """Return the start of each day of the month and of the next month, in UTC.

        A day of a daylight saving time change has 23 or 25 hours, so the next day does not start 24 hours later.
        """
        last = calendar.monthrange(self.year, self.month)[1]
        days = [datetime(self.year, self.month, day, tzinfo=self.zone) for day in range(1, last + 1)]
        # Adding to an aware datetime uses local time: one day later is the same time of day.
        return [moment.astimezone(UTC) for moment in (*days, days[-1] + timedelta(days=1))]


@dataclass(frozen=True)
class Series:
    """A value for each day of the month."""

    name: str
    values: list[int]


@dataclass(frozen=True)
class MonthlyReport:
    """The content of a report: its series, of which there may be none, and sentences below the title."""

    month: Month
    series: list[Series]
    notes: list[str]


def reportable_month(month: int, year: int) -> Month:
    """Return the month.

    Raises:
        ValueError: the month does not exist, is before 1970, or has not started.
    """
    if type(month) is not int or not 1 <= month <= 12:
        raise ValueError(f"month={str(month)[:20]!r} must be an integer from 1 to 12")
    if type(year) is not int or not 1970 <= year <= 9999:
        raise ValueError(f"year={str(year)[:20]!r} must be an integer from 1970 to 9999")
    wanted = Month(year, month)
    if datetime(year, month, 1, tzinfo=wanted.zone) > datetime.now(UTC):
        raise ValueError(f"{year}-{month:02} has not started yet")
    return wanted


async def count_per_day(db: AsyncSession, moment: _Moment, month: Month) -> list[int]:
    """Return for each day of the month how many rows have their `moment`, a UtcDateTime column, on that day."""
    edges = month.edges()
    # Compare with the start of each day: SQLite has no time zones, and MySQL only if they were loaded.
    day = case(*((moment < end, number) for number, end in enumerate(edges[1:])))
    days = select(day.label("day")).where(moment >= edges[0], moment < edges[-1]).subquery()
    rows = await db.execute(select(days.c.day, func.count()).group_by(days.c.day))
    counts: dict[int, int] = dict(iter(rows))
    return [counts.get(number, 0) for number in range(len(edges) - 1)]
