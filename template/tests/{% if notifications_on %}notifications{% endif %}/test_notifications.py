"""Notifications, sent to a real HTTP server with the typical failures of receivers."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from celery import states
from pydantic import SecretStr, ValidationError
from redis.exceptions import RedisError

from app.core.celery import celery_app
from app.features.notifications import delivery, pace
from app.features.notifications import service as notifications
from app.features.notifications.config import NotificationSettings, notification_settings
from app.features.notifications.delivery import BeingSent, send_once
from app.features.notifications.service import (
    Notification,
    NotificationError,
    TemporaryNotificationError,
    WebhookSender,
    seconds_until,
)
from app.tasks import notification_task
from app.tasks.notification_task import send_bulk_notifications, send_notification_chunk, send_push_notification
from app.worker.broker import results_client
from app.worker.status import read_status
from tests.notifications.receiver import Receiver, receiving

SECRET = "x7Gq-2mN_4kPz9-x7Gq-2mN_4kPz9"
HELLO = Notification(id="greeting", user_id=7, title="Grüße", message="Hello")


@pytest.fixture(autouse=True)
def empty_records() -> Iterator[None]:
    """Delete the records of sent notifications after the test."""
    yield
    backend: Any = celery_app.backend
    for key in backend.client.scan_iter("notification*"):
        backend.client.delete(key)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Run a receiver and set the settings to it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with receiving() as running:
        for name, value in {"webhook_url": running.url, "webhook_secret": SecretStr(SECRET), "timeout": 0.5}.items():
            monkeypatch.setattr(notification_settings, name, value)
        notifications.sender.cache_clear()
        sender = notifications.sender()
        assert isinstance(sender, WebhookSender)
        yield running
        sender.close()
        notifications.sender.cache_clear()


@pytest.fixture
def webhook(receiver: Receiver) -> Iterator[WebhookSender]:
    """Yield a sender to the receiver."""
    sender = WebhookSender(receiver.url, SECRET, timeout=0.5)
    yield sender
    sender.close()


def _record(notification: Notification) -> Any:
    backend: Any = celery_app.backend
    return backend.client.get(f"notification:{notification.key}")


def test_notifications_are_signed(receiver: Receiver, webhook: WebhookSender) -> None:
    webhook.send(HELLO)
    [request] = receiver.requests
    assert json.loads(request.body) == {"id": "greeting", "user_id": 7, "title": "Grüße", "message": "Hello"}
    assert request.headers["content-type"] == "application/json"
    assert request.key == "greeting-7"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 30
    # The signed content of Standard Webhooks: id.timestamp.payload.
    signed = b".".join([request.key.encode(), request.headers["webhook-timestamp"].encode(), request.body])
    expected = base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256)).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_the_connection_is_reused(receiver: Receiver, webhook: WebhookSender) -> None:
    for _ in range(5):
        webhook.send(HELLO)
    assert (len(receiver.requests), receiver.connections) == (5, 1)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_temporary_statuses_are_temporary_errors(receiver: Receiver, webhook: WebhookSender, status: int) -> None:
    receiver.script((status, {"Retry-After": "7"}))
    with pytest.raises(TemporaryNotificationError, match=f"responded with {status}") as caught:
        webhook.send(HELLO)
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 422])
def test_permanent_statuses_are_permanent_errors(receiver: Receiver, webhook: WebhookSender, status: int) -> None:
    receiver.script((status, {"Location": receiver.url}))
    with pytest.raises(NotificationError, match=f"responded with {status}"):
        webhook.send(HELLO)
    assert len(receiver.requests) == 1, "a redirect is not followed"


def test_no_response_is_a_temporary_error(receiver: Receiver, webhook: WebhookSender) -> None:
    receiver.script(None)
    with pytest.raises(TemporaryNotificationError, match="did not respond"):
        webhook.send(HELLO)
    slow = threading.Event()
    receiver.respond = lambda _: (slow.wait(5) and None) or None
    with pytest.raises(TemporaryNotificationError, match="ReadTimeout"):
        webhook.send(HELLO)
    slow.set()


def test_an_unreachable_server_is_a_temporary_error() -> None:
    sender = WebhookSender("http://127.0.0.1:1/", SECRET, timeout=0.5)
    with pytest.raises(TemporaryNotificationError, match="ConnectError"):
        sender.send(HELLO)
    sender.close()


def test_retry_after_is_seconds_or_a_date() -> None:
    assert seconds_until("120") == 120
    in_a_minute = datetime.now(UTC) + timedelta(seconds=60)
    assert 55 < seconds_until(format_datetime(in_a_minute, usegmt=True)) <= 60
    assert seconds_until("Wed, 21 Oct 2015 07:28:00 -0000") == 0
    assert [seconds_until(text) for text in ("", "-5", "soon", "²", "Wed, 99 Oct")] == [0] * 5


def test_the_pause_is_retry_after_plus_backoff_with_jitter() -> None:
    asked = TemporaryNotificationError("busy", 30)
    assert {30 <= notification_task._pause(asked, 0) <= 32 for _ in range(50)} == {True}
    assert notification_task._pause(TemporaryNotificationError("busy", 1e9), 20) <= 3600 + 600
    assert len({notification_task._pause(ValueError(), 8) for _ in range(50)}) > 10


def test_a_notification_is_sent_once(receiver: Receiver, webhook: WebhookSender) -> None:
    assert send_once(HELLO, webhook)
    assert not send_once(HELLO, webhook)
    assert send_once(HELLO.model_copy(update={"user_id": 8}), webhook)
    assert send_once(HELLO.model_copy(update={"id": "another"}), webhook)
    assert [request.key for request in receiver.requests] == ["greeting-7", "greeting-8", "another-7"]


def test_an_error_after_the_status_line_is_ignored(receiver: Receiver, webhook: WebhookSender) -> None:
    receiver.script((200, {"Content-Length": "10"}), (400, {"Content-Length": "10"}))
    assert send_once(HELLO, webhook)
    assert not send_once(HELLO, webhook)
    assert len(receiver.requests) == 1
    with pytest.raises(NotificationError, match="responded with 400"):
        webhook.send(HELLO)


def test_two_concurrent_attempts_send_once() -> None:
    began, go_on = threading.Event(), threading.Event()
    sent = []

    class Slow:
        def send(self, notification: Notification) -> None:
            began.set()
            assert go_on.wait(10)
            sent.append(notification)

    first = threading.Thread(target=send_once, args=(HELLO, Slow()))
    first.start()
    assert began.wait(10)
    with pytest.raises(BeingSent, match="another process is sending") as caught:
        send_once(HELLO, Slow())
    assert 1 <= caught.value.retry_after <= delivery.CLAIMED
    go_on.set()
    first.join()
    assert not send_once(HELLO, Slow())
    assert sent == [HELLO]


def test_a_failed_attempt_can_be_retried_immediately(receiver: Receiver, webhook: WebhookSender) -> None:
    receiver.script((503, {}))
    with pytest.raises(TemporaryNotificationError):
        send_once(HELLO, webhook)
    assert _record(HELLO) is None
    assert send_once(HELLO, webhook)
    assert _record(HELLO) == b"sent"


def test_a_claim_of_another_process_is_not_released() -> None:
    backend: Any = celery_app.backend

    class Late:
        def send(self, notification: Notification) -> None:
            # The claim has expired meanwhile, and another process has its own.
            backend.client.set(f"notification:{notification.key}", "claimed:other")
            raise TemporaryNotificationError("too slow")

    with pytest.raises(TemporaryNotificationError):
        send_once(HELLO, Late())
    assert _record(HELLO) == b"claimed:other"


def test_a_sent_notification_that_cannot_be_recorded_is_a_success(
    webhook: WebhookSender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = results_client()
    calls = []

    class Failing:
        def set(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            if args[1] == b"sent":
                raise RedisError("unreachable")
            return client.set(*args, **kwargs)

    monkeypatch.setattr(delivery, "results_client", Failing)
    assert send_once(HELLO, webhook)
    assert len(calls) == 2
    assert str(_record(HELLO)).startswith("b'claimed:"), "the claim still prevents a second delivery"


def test_a_task_that_is_retried_sends_once(receiver: Receiver) -> None:
    receiver.script((503, {}), (429, {"Retry-After": "0"}), None)
    result = send_push_notification.apply(args=(7, "Hi", "there"))
    assert result.get() == {"status": "sent", "user_id": 7}
    assert len(receiver.requests) == 4
    assert {request.key for request in receiver.requests} == {f"{result.id}-7"}
    again = send_push_notification.apply(args=(7, "Hi", "there"), task_id=result.id)
    assert again.get() == {"status": "already sent", "user_id": 7}
    assert len(receiver.requests) == 4


def test_calls_with_the_same_notification_id_send_once(receiver: Receiver) -> None:
    for status in ("sent", "already sent"):
        result = send_push_notification.apply(args=(7, "Shipped", "Order 42", "order-42:shipped"))
        assert result.get() == {"status": status, "user_id": 7}
    assert [request.key for request in receiver.requests] == ["order-42:shipped-7"]


def test_a_permanent_rejection_is_not_retried(receiver: Receiver) -> None:
    receiver.script((400, {}), (400, {}))
    result = send_push_notification.apply(args=(7, "Hi", "there"))
    assert result.state == states.FAILURE
    assert isinstance(result.result, NotificationError)
    assert len(receiver.requests) == 1


def test_the_task_fails_after_the_last_retry(receiver: Receiver) -> None:
    receiver.respond = lambda _: (503, {})
    result = send_push_notification.apply(args=(7, "Hi", "there"))
    assert result.state == states.FAILURE
    assert str(result.result) == "the receiver responded with 503 Service Unavailable"
    assert len(receiver.requests) == 9


@pytest.mark.parametrize("task", [send_push_notification, send_bulk_notifications])
def test_without_a_webhook_url_the_error_names_the_setting(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notification_settings, "webhook_url", "")
    notifications.sender.cache_clear()
    result = task.apply(args=([7] if task is send_bulk_notifications else 7, "Hi", "there"))
    assert result.state == states.FAILURE
    assert str(result.result).startswith("NOTIFICATION_WEBHOOK_URL is not set")


@pytest.mark.parametrize(
    "change",
    [
        *({"user_id": value} for value in (0, -1, "7", True, 7.0, None, 2**63)),
        *({"title": value} for value in ("", "x" * 201, None, "\ud800")),
        *({"message": value} for value in ("", "x" * 4001)),
        *({"notification_id": value} for value in ("a\r\nb", "a b", "ü", "x" * 156)),
    ],
    ids=lambda change: ascii(change)[:40],
)
def test_invalid_input_is_rejected_without_showing_it(receiver: Receiver, change: dict[str, Any]) -> None:
    arguments = {"user_id": 7, "title": "Hi", "message": "there", **change}
    result = send_push_notification.apply(kwargs=arguments)
    assert result.state == states.FAILURE
    assert isinstance(result.result, NotificationError)
    assert "xxx" not in str(result.result)
    user = arguments.pop("user_id")
    assert send_bulk_notifications.apply(kwargs={"user_ids": [1, user], **arguments}).state == states.FAILURE
    assert not receiver.requests


@pytest.mark.parametrize("users", [[], list(range(1, notification_task.MAX_USERS + 2))], ids=["none", "too many"])
def test_the_number_of_users_in_a_bulk_call_is_limited(receiver: Receiver, users: list[int]) -> None:
    result = send_bulk_notifications.apply(args=(users, "Hi", "there"))
    assert result.state == states.FAILURE
    assert "the number must be 1 to 10000" in str(result.result)


def test_a_bulk_call_returns_the_ids_of_its_tasks(receiver: Receiver) -> None:
    users = [3, 1, 2, 3]
    first = send_bulk_notifications.apply(args=(users, "Hi", "there"), task_id="news").get()
    assert first["queued"] == len(set(first["task_ids"])) == 3
    for task_id in first["task_ids"]:
        status = read_status(task_id)
        assert status is not None
        assert status.status == states.PENDING
    again = send_bulk_notifications.apply(args=(users, "Hi", "there"), task_id="news").get()
    assert again == first, "a call that runs again queues the same tasks"


def test_the_ids_of_a_bulk_calls_tasks_cannot_be_guessed(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def ids(**secrets: str) -> list[str]:
        for name in ("id_secret", "webhook_secret"):
            monkeypatch.setattr(notification_settings, name, SecretStr(secrets.get(name, "")))
        return list(send_bulk_notifications.apply(args=([1, 2], "Hi", "there", "news")).get()["task_ids"])

    assert ids(id_secret="one") == ids(id_secret="one", webhook_secret="x")
    found = [ids(id_secret="one"), ids(id_secret="two"), ids(webhook_secret="three"), ids()]
    assert len({task_id for task_ids in found for task_id in task_ids}) == 8


def test_reservations_do_not_overlap(receiver: Receiver) -> None:
    assert pace.reserve(10) == 0
    assert 9 < pace.reserve(0.5) <= 10
    assert 9.5 < pace.reserve(1) <= 10.5
    backend: Any = celery_app.backend
    assert 0 < backend.client.ttl(pace.KEY) <= 13


def test_bulk_calls_share_the_rate_limit(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notification_settings, "bulk_per_minute", 600)
    send_bulk_notifications.apply(args=(list(range(1, 251)), "Hi", "there")).get()
    assert 24 < pace.reserve(1) <= 25


def test_task_names_and_time_limits() -> None:
    assert send_push_notification.name == "send_push_notification"
    assert send_bulk_notifications.name == "send_bulk_notifications"
    assert send_notification_chunk.name == "send_notification_chunk"
    # A claim lasts longer than an attempt, and an attempt longer than a request: connecting, sending and reading.
    longest = NotificationSettings.model_fields["timeout"].metadata[1].le
    assert 3 * longest < send_push_notification.soft_time_limit
    assert send_push_notification.time_limit < delivery.CLAIMED


@pytest.mark.parametrize("url", ["ftp://x/", "example.com", "https://", "https://user:hunter2@example.com/"])
def test_invalid_webhook_urls_are_rejected(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFICATION_WEBHOOK_URL", url)
    with pytest.raises(ValidationError, match="must") as caught:
        NotificationSettings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "secret", "problems"),
    [
        ("", "", []),
        ("https://push.example.com/", SECRET, []),
        ("http://127.0.0.1:9000/", SECRET, []),
        ("http://push.example.com/", SECRET, ["NOTIFICATION_WEBHOOK_URL sends notifications unencrypted"]),
        ("https://push.example.com/", "", ["NOTIFICATION_WEBHOOK_SECRET is empty"]),
        ("https://push.example.com/", "changeme", ["NOTIFICATION_WEBHOOK_SECRET is a default"]),
    ],
)
def test_the_audit_requires_https_and_a_secret(
    url: str, secret: str, problems: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFICATION_WEBHOOK_URL", url)
    monkeypatch.setenv("NOTIFICATION_WEBHOOK_SECRET", secret)
    found = NotificationSettings().audit()
    assert len(found) == len(problems)
    for sentence, start in zip(found, problems, strict=True):
        assert sentence.startswith(start)
