"""Mails that follow what is saved already."""

from typing import Any

import structlog
from celery.canvas import Signature

from app.worker.publish import QueueUnavailable, enqueue

_logger = structlog.get_logger(__name__)


async def try_to_mail(signature: Signature[Any]) -> None:
    """Queue a mail; without Redis it is logged and left out, as an error would say that nothing had been saved."""
    try:
        await enqueue(signature)
    except QueueUnavailable:
        _logger.warning("mail_not_queued", task=signature.task)
