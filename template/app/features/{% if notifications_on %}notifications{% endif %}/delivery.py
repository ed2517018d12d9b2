"""Send each notification once per user. Tasks may run more than once, so the result store records what was sent."""

import contextlib
import secrets

import structlog
from redis.exceptions import RedisError

from app.core.logging import error_repr
from app.features.notifications.service import Notification, Sender
from app.worker.broker import results_client

KEPT = 7 * 86400
"""Seconds that the record of a sent notification is kept."""

CLAIMED = 90
"""Seconds after which the claim of a dead process expires; longer than any attempt may take."""

_SENT = b"sent"

# Compare before deleting: after a long pause the record may belong to another process.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

_logger = structlog.get_logger(__name__)


class BeingSent(Exception):
    """Another process is sending this notification, or died doing so; its claim expires in `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Return the reason as a sentence."""
        return f"another process is sending this notification or died doing so; retry in {self.retry_after:g} s"


def send_once(notification: Notification, sender: Sender) -> bool:
    """Send the notification unless it was sent before; return whether it was sent now.

    If a process dies after sending but before recording it, its claim expires and the notification is sent again with
    the same idempotency key.

    Raises:
        BeingSent: another process is sending it.
        TemporaryNotificationError, NotificationError: sending failed; the claim is released, so a retry can start now.
        redis.exceptions.RedisError: the claim could not be stored; nothing was sent.
    """
    client = results_client()
    key = f"notification:{notification.key}"
    claim = f"claimed:{secrets.token_hex(8)}"
    if not client.set(key, claim, nx=True, ex=CLAIMED):
        if client.get(key) == _SENT:
            return False
        raise BeingSent(max(1.0, client.pttl(key) / 1000))
    try:
        sender.send(notification)
    except BaseException:
        with contextlib.suppress(RedisError):
            client.eval(_RELEASE, 1, key, claim)
        raise
    try:
        client.set(key, _SENT, ex=KEPT)
    except RedisError as error:
        # It was sent; raising would send it again.
        _logger.warning("notification_not_recorded", notification=notification.key, error=error_repr(error))
    return True
