"""What follows a registration: nothing here; with Celery `mails/` adds the welcome mail."""

from dataclasses import dataclass

from app.features.accounts.models import User


@dataclass(frozen=True)
class Welcomed:
    """The message for the new user, and the id of the task that sends the mail."""

    message: str
    task_id: str | None = None


class Welcome:
    """Do nothing."""

    async def check(self) -> None:
        """Return when `welcome` would work."""

    async def welcome(self, user: User) -> Welcomed:
        """Welcome a user whose account is committed."""
        return Welcomed("Registration successful")


welcomes: list[Welcome] = [Welcome()]
"""The last one counts: a feature appends its own when it is loaded."""
