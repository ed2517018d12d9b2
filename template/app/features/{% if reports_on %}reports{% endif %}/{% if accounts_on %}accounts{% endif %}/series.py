"""Count registrations and logins per day."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.features.accounts.models import Session, User
from app.features.reports.service import Month, Series, count_per_day

NOTE = "Expired logins are counted until they are deleted from the database."


async def account_series(db: AsyncSession, month: Month) -> list[Series]:
    """Count the month's registrations and logins."""
    return [
        Series("Registrations", await count_per_day(db, User.created_at, month)),
        Series("Logins", await count_per_day(db, Session.created_at, month)),
    ]
