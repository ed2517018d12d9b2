"""What happens after a registration. By default nothing; with Celery, `mails/` queues the welcome mail."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.features.accounts.models import User


@dataclass(frozen=True)
class Welcomed:
    """The message of the response, and the id of the task that sends the mail."""

    message: str
    task_id: str | None = None


class Welcome:
    """The default, which does nothing. Override the method to send a mail."""

    async def welcome(self, db: AsyncSession, user: User) -> Welcomed:
        """Welcome a user whose account is committed when this returns."""
        return Welcomed("Registration successful")


welcomes: list[Welcome] = [Welcome()]
"""The routes use the last entry. A feature appends its own when it is loaded."""
