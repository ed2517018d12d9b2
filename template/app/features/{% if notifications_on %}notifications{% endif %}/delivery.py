"""Each notification once to each user: tasks run at least once, so Redis, beside the results, knows what was sent."""

import contextlib
import secrets

import structlog
from redis.exceptions import RedisError

from app.features.notifications.service import Notification, Sender
from app.worker.broker import results_client

KEPT = 7 * 86400
"""Seconds that a notification is remembered after it was sent."""

CLAIMED = 90
"""Seconds after which a claim is over whose process has died: longer than any attempt may take."""

_SENT = b"sent"

# Only an own claim is given back: after a long pause the record may be somebody else's.
_GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

_logger = structlog.get_logger(__name__)


class BeingSent(Exception):
    """Another process is sending this notification, or died at it; its claim ends in `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Return what happened, in a sentence."""
        return f"another process is sending this notification or died at it; its claim ends in {self.retry_after:g} s"


def send_once(notification: Notification, sender: Sender) -> bool:
    """Send the notification unless its user has it, and return whether it was sent now.

    A process that dies between sending and recording leaves its claim: when that is over the notification is sent again,
    with the same idempotency key.

    Raises:
        BeingSent: somebody else is at it.
        TemporaryNotificationError, NotificationError: see `Sender`; the next attempt may start at once.
        redis.exceptions.RedisError: Redis did not take the claim; nothing was sent.
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
            client.eval(_GIVE_BACK, 1, key, claim)
        raise
    try:
        client.set(key, _SENT, ex=KEPT)
    except RedisError as error:
        # It was sent: raising would send it once more.
        _logger.warning("notification_not_recorded", notification=notification.key, error=repr(error))
    return True
