"""Queue mails after a commit."""

from typing import Any

import structlog
from celery.canvas import Signature

from app.worker.publish import QueueUnavailable, enqueue

_logger = structlog.get_logger(__name__)


async def queue_mail(signature: Signature[Any]) -> None:
    """Queue a mail; only log a failure, because an error response would suggest that nothing was saved."""
    try:
        await enqueue(signature)
    except QueueUnavailable:
        _logger.warning("mail_not_queued", task=signature.task)
