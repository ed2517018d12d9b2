"""What follows a registration with Celery: the welcome mail, and a note of the first activity."""

import structlog

from app.features.accounts.basic.welcome import Welcome, Welcomed
from app.features.accounts.models import User
from app.tasks.account_tasks import record_activity
from app.tasks.welcome_email_task import send_welcome_email
from app.worker.publish import QueueUnavailable, check_queue, enqueue

_logger = structlog.get_logger(__name__)


class WelcomeByMail(Welcome):
    """Queue the tasks of a new account."""

    async def check(self) -> None:
        """Return when `welcome` would work.

        Raises:
            QueueUnavailable: the task queue does not answer.
        """
        await check_queue()

    async def welcome(self, user: User) -> Welcomed:
        """Queue the tasks for an account that is committed: they may start at once."""
        try:
            mail = await enqueue(send_welcome_email.s(user.email))
            await enqueue(record_activity.s(user.id))
        except QueueUnavailable:
            # The account exists: an error would make the user register again, in vain.
            _logger.warning("welcome_not_queued", user_id=user.id)
            return Welcomed("Registration successful; the welcome mail was not queued")
        return Welcomed("Registration successful", mail.id)
