"""Notifications to users, and the webhook that takes them. For tasks: these calls wait for the receiver."""

import base64
import contextlib
import functools
import hashlib
import hmac
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.features.notifications.config import notification_settings

_TEMPORARY = {408, 425, 429}
_LARGEST_ANSWER = 65536


class NotificationError(Exception):
    """The notification was refused for good, or cannot be sent at all."""


class TemporaryNotificationError(Exception):
    """The receiver could not be reached, was too slow, or asked to try again later."""

    def __init__(self, reason: str, retry_after: float = 0) -> None:
        super().__init__(reason, retry_after)
        self.retry_after = retry_after
        """Seconds that the receiver asked to wait."""

    def __str__(self) -> str:
        """Return the reason."""
        return str(self.args[0])


class Notification(BaseModel):
    """One message to one user; an `id` and a user together happen once."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str = Field(pattern=r"^[A-Za-z0-9_:-]{1,155}$")
    user_id: int = Field(ge=1, lt=2**63)
    title: str = Field(min_length=1, max_length=200)
    message: str = Field(min_length=1, max_length=4000)

    @classmethod
    def checked(cls, **fields: object) -> "Notification":
        """Return the notification of these fields.

        Raises:
            NotificationError: one of them cannot be; it says which and why, but not what was given.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            problem = error.errors()[0]
            # Celery cannot bring pydantic's own exception from a worker to whoever asks for the state.
            raise NotificationError(f"{problem['loc'][0]}: {problem['msg']}") from None

    @property
    def key(self) -> str:
        """The idempotency key: the same for every attempt, another for every other notification."""
        return f"{self.id}-{self.user_id}"


class Sender(Protocol):
    """What brings a notification to its user: a webhook here, anything else with this method."""

    def send(self, notification: Notification) -> None:
        """Return when the notification was taken.

        Raises:
            TemporaryNotificationError: it was not, or nobody knows; trying later makes sense.
            NotificationError: it never will be.
        """


class WebhookSender:
    """Posts each notification as JSON, signed; one connection is kept for the next. Usable from several threads.

    The headers and the signature are those of https://www.standardwebhooks.com, where `webhook-id` is the idempotency key.
    """

    def __init__(self, url: str, secret: str, timeout: float) -> None:
        self._url = url
        self._secret = secret.encode()
        self._client = httpx.Client(timeout=timeout)

    def send(self, notification: Notification) -> None:
        """Post it and return when the receiver answered 2xx; see `Sender`."""
        body = notification.model_dump_json().encode()
        headers = self._headers(notification, body)
        try:
            request = self._client.stream("POST", self._url, content=body, headers=headers)
            # What breaks off after its status has answered: another attempt would notify twice.
            with request as answer, contextlib.suppress(httpx.TransportError):
                _read_away(answer)
        except httpx.TransportError as error:
            raise TemporaryNotificationError(f"the receiver did not answer: {error!r}") from error
        if answer.is_success:
            return
        reason = f"the receiver answered {answer.status_code} {answer.reason_phrase}".rstrip()
        if answer.is_server_error or answer.status_code in _TEMPORARY:
            raise TemporaryNotificationError(reason, seconds_until(answer.headers.get("retry-after", "")))
        # A redirect too: following it would hand what is signed to an address that nobody configured.
        raise NotificationError(reason)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _headers(self, notification: Notification, body: bytes) -> dict[str, str]:
        now = int(time.time())
        return {
            "content-type": "application/json",
            "webhook-id": notification.key,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._secret, notification.key, now, body),
        }


def signature(secret: bytes, key: str, timestamp: int, body: bytes) -> str:
    """Return `v1,` and the base64 of the HMAC-SHA256 of `key.timestamp.body`."""
    digest = hmac.new(secret, f"{key}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


@functools.cache
def sender() -> Sender:
    """Return the process's sender. Put one of your own here to send by other means.

    Raises:
        NotificationError: there is no receiver.
    """
    config = notification_settings
    if not config.webhook_url:
        raise NotificationError("NOTIFICATION_WEBHOOK_URL is not set, so nobody takes notifications.")
    return WebhookSender(config.webhook_url, config.webhook_secret.get_secret_value(), config.timeout)


def seconds_until(retry_after: str) -> float:
    """Return the seconds that a `Retry-After` header asks for, as a number or a date; 0 where it says neither.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0
    # A date in -0000 has no time zone; HTTP's are all GMT.
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _read_away(answer: httpx.Response) -> None:
    """Read an answer of reasonable size, so that its connection can be used again; the rest of a larger one is dropped."""
    size = 0
    for chunk in answer.iter_raw():
        size += len(chunk)
        if size > _LARGEST_ANSWER:
            return
