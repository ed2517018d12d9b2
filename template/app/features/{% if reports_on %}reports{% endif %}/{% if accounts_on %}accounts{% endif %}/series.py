"""Registrations and logins, day by day."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.features.accounts.models import Session, User
from app.features.reports.service import Month, Series, count_per_day

NOTE = "Logins that have expired are counted while the database still keeps them."


async def account_series(db: AsyncSession, month: Month) -> list[Series]:
    """Count the month's registrations and logins."""
    return [
        Series("Registrations", await count_per_day(db, User.created_at, month)),
        Series("Logins", await count_per_day(db, Session.created_at, month)),
    ]
