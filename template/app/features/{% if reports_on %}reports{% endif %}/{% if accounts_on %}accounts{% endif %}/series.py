"""Count registrations and logins per day."""

from typing import TYPE_CHECKING

# Every process that publishes or runs tasks registers the series; only a report needs SQLAlchemy.
if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.features.reports.service import Month, Series

NOTE = "Expired logins are counted until they are deleted from the database."


async def account_series(db: "AsyncSession", month: "Month") -> "list[Series]":
    """Count the month's registrations and logins."""
    from app.features.accounts.models import Session, User  # noqa: PLC0415
    from app.features.reports.service import Series, count_per_day  # noqa: PLC0415

    return [
        Series("Registrations", await count_per_day(db, User.created_at, month)),
        Series("Logins", await count_per_day(db, Session.created_at, month)),
    ]
