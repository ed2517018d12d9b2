"""Tasks that a registration queues: the welcome mail, and recording the user's first activity."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.features.accounts.basic.welcome import Welcome, Welcomed
from app.features.accounts.models import User
from app.tasks.account_tasks import record_activity
from app.tasks.welcome_email_task import send_welcome_email
from app.worker.publish import enqueue


class WelcomeByMail(Welcome):
    """Queue the tasks of a new account."""

    async def welcome(self, db: AsyncSession, user: User) -> Welcomed:
        """Commit the tasks with the account, also while Redis is down."""
        mail = await enqueue(send_welcome_email.s(user.email), after_commit=db, outbox=True)
        await enqueue(record_activity.s(user.id), after_commit=db, outbox=True)
        return Welcomed("Registration successful", mail.id)
