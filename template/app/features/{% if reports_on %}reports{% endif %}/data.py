"""Collect the series of the monthly report, which other modules register, such as `accounts/series.py`."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

# Every process that publishes or runs tasks registers its series here; only a report needs SQLAlchemy.
if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.features.reports.service import Month, MonthlyReport, Series

SeriesSource = Callable[["AsyncSession", "Month"], Awaitable["list[Series]"]]

sources: list[SeriesSource] = []
"""Called in order for each report. Add one in your feature's `worker.py`: `def connect(): sources.append(orders)`."""
notes: list[str] = []
"""Sentences that are printed below the title."""


async def monthly_report(month: "Month") -> "MonthlyReport":
    """Return the month's report."""
    from app.core.database import session_scope  # noqa: PLC0415
    from app.features.reports.service import MonthlyReport  # noqa: PLC0415

    async with session_scope() as db:
        series = [one for source in sources for one in await source(db, month)]
    return MonthlyReport(
        month, series, notes or ["The report has no series yet; docs/reports.md shows how to add one."]
    )
