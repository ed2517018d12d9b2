"""What the monthly report counts: the series that other modules register, such as `accounts/series.py`."""

from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import session_scope
from app.features.reports.service import Month, MonthlyReport, Series

SeriesSource = Callable[[AsyncSession, Month], Awaitable[list[Series]]]

sources: list[SeriesSource] = []
"""Called in turn for each report. Register yours in your feature's `worker.py`: `def connect(): sources.append(orders)`."""
notes: list[str] = []
"""Sentences below the title."""


async def monthly_report(month: Month) -> MonthlyReport:
    """Return the month's report."""
    async with session_scope() as db:
        series = [one for source in sources for one in await source(db, month)]
    return MonthlyReport(month, series, notes or ["Nothing is counted yet: docs/reports.md shows how to add a series."])
