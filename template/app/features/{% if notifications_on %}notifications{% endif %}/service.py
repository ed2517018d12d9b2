"""Notifications and the webhook sender. Call this only in tasks: the calls wait for the receiver."""

import base64
import contextlib
import functools
import hashlib
import hmac
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.logging import error_repr
from app.features.notifications.config import notification_settings

# API, beat and most workers never send a notification: httpx2 is imported with the sender (40 ms, 5 MB).
if TYPE_CHECKING:
    import httpx2 as httpx

_TEMPORARY = {408, 425, 429}
_MAX_RESPONSE = 65536


class NotificationError(Exception):
    """The receiver rejected the notification permanently, or it cannot be sent."""


class TemporaryNotificationError(Exception):
    """The receiver is unreachable, timed out, or asked to retry later."""

    def __init__(self, reason: str, retry_after: float = 0) -> None:
        super().__init__(reason, retry_after)
        self.retry_after = retry_after
        """The seconds of the receiver's Retry-After header."""

    def __str__(self) -> str:
        """Return the reason."""
        return str(self.args[0])


class Notification(BaseModel):
    """One message to one user. Each combination of `id` and user is sent once."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str = Field(pattern=r"^[A-Za-z0-9_:-]{1,155}$")
    user_id: int = Field(ge=1, lt=2**63)
    title: str = Field(min_length=1, max_length=200)
    message: str = Field(min_length=1, max_length=4000)

    @classmethod
    def checked(cls, **fields: object) -> "Notification":
        """Return a notification with these fields.

        Raises:
            NotificationError: a field is invalid; the message has its name and the reason, but not its value.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            problem = error.errors()[0]
            # Celery cannot serialize pydantic's exception as a task result.
            raise NotificationError(f"{problem['loc'][0]}: {problem['msg']}") from None

    @property
    def key(self) -> str:
        """The idempotency key: the same for every attempt at this notification."""
        return f"{self.id}-{self.user_id}"


class Sender(Protocol):
    """Sends a notification to its user. Implement `send` to replace the webhook."""

    def send(self, notification: Notification) -> None:
        """Send the notification and return when it was accepted.

        Raises:
            TemporaryNotificationError: it was not accepted, or that is unknown; a retry may succeed.
            NotificationError: it was rejected permanently.
        """


class WebhookSender:
    """Post notifications as signed JSON over a persistent connection. Thread-safe.

    Headers and signature follow https://www.standardwebhooks.com; `webhook-id` is the idempotency key.
    """

    def __init__(self, url: str, secret: str, timeout: float) -> None:
        import httpx2 as httpx  # noqa: PLC0415

        self._url = url
        self._secret = secret.encode()
        self._client = httpx.Client(timeout=timeout)

    def send(self, notification: Notification) -> None:
        """Post the notification and return when the receiver responds with 2xx; raise the errors of `Sender`."""
        import httpx2 as httpx  # noqa: PLC0415

        body = notification.model_dump_json().encode()
        headers = self._headers(notification, body)
        try:
            request = self._client.stream("POST", self._url, content=body, headers=headers)
            # An error after the status line is ignored: a retry would send the notification twice.
            with request as response, contextlib.suppress(httpx.TransportError):
                _drain(response)
        except httpx.TransportError as error:
            raise TemporaryNotificationError(f"the receiver did not respond: {error_repr(error)}") from error
        if response.is_success:
            return
        reason = f"the receiver responded with {response.status_code} {response.reason_phrase}".rstrip()
        if response.is_server_error or response.status_code in _TEMPORARY:
            raise TemporaryNotificationError(reason, seconds_until(response.headers.get("retry-after", "")))
        # Redirects are not followed: they could send the signed notification to an address that is not configured.
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
    """Return the process's sender. Return another `Sender` here to replace the webhook.

    Raises:
        NotificationError: NOTIFICATION_WEBHOOK_URL is not set.
    """
    config = notification_settings
    if not config.webhook_url:
        raise NotificationError("NOTIFICATION_WEBHOOK_URL is not set; set it to the receiver's URL.")
    return WebhookSender(config.webhook_url, config.webhook_secret.get_secret_value(), config.timeout)


def seconds_until(retry_after: str) -> float:
    """Return the seconds of a `Retry-After` header, which is a number or a date; 0 if it is neither.

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


def _drain(response: "httpx.Response") -> None:
    """Read the response, so that its connection can be reused; stop if it is too large."""
    size = 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > _MAX_RESPONSE:
            return
