"""What a monthly report is about: the days of a month in the application's time zone, and numbers for each of them."""

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
    """A month as the clocks of `zone` show it, which is CELERY_TIMEZONE where it is not given."""

    year: int
    month: int
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo(celery_settings.timezone))

    def edges(self) -> list[datetime]:
        """Return when each of its days begins and, last, when the next month begins; in UTC.

        A day has 23 or 25 hours where clocks change: `start + 24 h` is not the next one.
        """
        last = calendar.monthrange(self.year, self.month)[1]
        days = [datetime(self.year, self.month, day, tzinfo=self.zone) for day in range(1, last + 1)]
        # Arithmetic on a moment with a zone is that of a clock on the wall.
        return [moment.astimezone(UTC) for moment in (*days, days[-1] + timedelta(days=1))]


@dataclass(frozen=True)
class Series:
    """A number for each day of the month."""

    name: str
    values: list[int]


@dataclass(frozen=True)
class MonthlyReport:
    """What is printed: one or more series, or none, and sentences below the title."""

    month: Month
    series: list[Series]
    notes: list[str]


def reportable_month(month: int, year: int) -> Month:
    """Return the month.

    Raises:
        ValueError: there is no such month, it is before 1970, or it has not begun.
    """
    if type(month) is not int or not 1 <= month <= 12:
        raise ValueError(f"month must be 1 to 12, not {str(month)[:20]!r}")
    if type(year) is not int or not 1970 <= year <= 9999:
        raise ValueError(f"year must be 1970 to 9999, not {str(year)[:20]!r}")
    wanted = Month(year, month)
    if datetime(year, month, 1, tzinfo=wanted.zone) > datetime.now(UTC):
        raise ValueError(f"{year}-{month:02} has not begun")
    return wanted


async def count_per_day(db: AsyncSession, moment: _Moment, month: Month) -> list[int]:
    """Return how many rows have their `moment`, a column of the type UtcDateTime, on each day of the month."""
    edges = month.edges()
    # The days are told apart by their edges: neither MySQL nor SQLite knows time zones without being taught.
    day = case(*((moment < end, number) for number, end in enumerate(edges[1:])))
    days = select(day.label("day")).where(moment >= edges[0], moment < edges[-1]).subquery()
    rows = await db.execute(select(days.c.day, func.count()).group_by(days.c.day))
    counts: dict[int, int] = dict(iter(rows))
    return [counts.get(number, 0) for number in range(len(edges) - 1)]
