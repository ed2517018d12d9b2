"""Tasks that a registration queues: the welcome mail, and recording the user's first activity."""

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
        """Check that tasks can be queued.

        Raises:
            QueueUnavailable: Redis is unreachable.
        """
        await check_queue()

    async def welcome(self, user: User) -> Welcomed:
        """Queue the tasks of a committed account; they may start immediately."""
        try:
            mail = await enqueue(send_welcome_email.s(user.email))
            await enqueue(record_activity.s(user.id))
        except QueueUnavailable:
            # The account exists: after an error the user would try to register again and fail.
            _logger.warning("welcome_not_queued", user_id=user.id)
            return Welcomed("Registration successful; the welcome mail was not queued")
        return Welcomed("Registration successful", mail.id)
