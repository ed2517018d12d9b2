"""One mail to one recipient."""

from typing import Any

from app.core.celery import celery_app
from app.utils.email import TemporaryMailError, send_email


@celery_app.task(
    name="send_email_task",
    queue_name="high",
    autoretry_for=(TemporaryMailError,),
    max_retries=5,
    retry_backoff=2,
    retry_backoff_max=600,
    retry_jitter=True,
)
def send_email_task(recipient: str, subject: str, body: str) -> dict[str, Any]:
    """Send a mail; tried again later when the mail server is away or says so, not when it refuses for good."""
    send_email(recipient, subject, body)
    return {"status": "sent", "recipient": recipient}
