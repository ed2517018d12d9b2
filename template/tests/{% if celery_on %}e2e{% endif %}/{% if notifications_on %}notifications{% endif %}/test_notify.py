"""Notifications from a real worker to a real HTTP server, with failures of both."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.core.celery import celery_app
from app.tasks.notification_task import send_bulk_notifications, send_push_notification
from app.worker.broker import result_key, results_client
from tests.e2e.conftest import Stack
from tests.e2e.processes import Running, start_worker, wait_until
from tests.notifications.receiver import ACCEPTED, Receiver, Request, receiving


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Run a receiver."""
    with receiving() as running:
        yield running


@pytest.fixture(scope="module")
def notifier(stack: Stack, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Replace the stack's worker by one that sends to the receiver."""
    stack.worker.stop()
    environment = {
        **stack.environment,
        "NOTIFICATION_WEBHOOK_URL": receiver.url,
        "NOTIFICATION_WEBHOOK_SECRET": "x7Gq-2mN_4kPz9",
        "NOTIFICATION_TIMEOUT": "1",
        "NOTIFICATION_BULK_PER_MINUTE": "12000",
        "NO_PROXY": "127.0.0.1",
    }
    worker = start_worker(tmp_path_factory.mktemp("notifier") / "notifier.log", "--concurrency=4", **environment)
    yield worker
    worker.stop()
    stack.worker = start_worker(stack.worker.log, **stack.environment)


def _runs(worker: Running, task_id: str) -> list[dict[str, Any]]:
    return [line for line in worker.lines("task_finished") if line["task_id"] == task_id]


@pytest.fixture(autouse=True)
def reset_receiver(receiver: Receiver) -> Iterator[None]:
    """Let the receiver accept everything again after each test."""
    yield
    receiver.respond = lambda _: ACCEPTED


def test_without_a_webhook_url_the_error_names_the_setting(stack: Stack) -> None:
    for result in (send_push_notification.delay(7, "Hi", "there"), send_bulk_notifications.delay([7], "Hi", "there")):
        state = stack.state(result.id)
        assert state["status"] == "FAILURE"
        assert state["error"]["type"] == "NotificationError"
        assert state["error"]["message"].startswith("NOTIFICATION_WEBHOOK_URL is not set")


def test_many_users_get_one_notification_each(stack: Stack, notifier: Running, receiver: Receiver) -> None:
    users = list(range(1, 251))
    seen: set[str] = set()

    def fail_the_first_of_three(request: Request) -> tuple[int, dict[str, str]] | None:
        if request.key in seen or request.user_id % 3:
            return ACCEPTED
        seen.add(request.key)
        return [(503, {}), (429, {"Retry-After": "1"}), None][request.user_id % 7 % 3]

    receiver.respond = fail_the_first_of_three
    start = time.monotonic()
    bulk = stack.state(send_bulk_notifications.delay(users, "News", "for all").id)["result"]
    assert bulk["queued"] == len(bulk["task_ids"]) == 250
    states = [stack.state(task_id) for task_id in bulk["task_ids"]]
    assert {state["status"] for state in states} == {"SUCCESS"}, states
    assert [state["result"] for state in states] == [{"status": "sent", "user_id": user} for user in users]
    mine = [request for request in receiver.requests if b"for all" in request.body]
    assert len(mine) == 250 + len(seen)
    # 200 per second, in chunks of 100.
    assert min(request.at for request in mine if request.user_id > 200) >= start + 1
    assert sorted(receiver.accepted[key] for key in {request.key for request in mine}) == [1] * 250


def test_retry_after_is_respected(stack: Stack, notifier: Running, receiver: Receiver) -> None:
    receiver.script((429, {"Retry-After": "3"}))
    task_id = send_push_notification.delay(7, "Hi", "slowly").id
    assert stack.state(task_id)["status"] == "SUCCESS"
    first, second = [request for request in receiver.requests if request.key == f"{task_id}-7"]
    assert second.at - first.at >= 3


def test_rejected_and_invalid_notifications_fail(stack: Stack, notifier: Running, receiver: Receiver) -> None:
    receiver.script((410, {}))
    state = stack.state(send_push_notification.delay(7, "Hi", "to nobody").id)
    assert state["error"] == {"type": "NotificationError", "message": "the receiver responded with 410 Gone"}
    state = stack.state(send_push_notification.delay(0, "Hi", "to nobody").id)
    assert state["error"]["type"] == "NotificationError"
    assert state["error"]["message"] == "user_id: Input should be greater than or equal to 1"


def test_a_task_that_is_delivered_twice_notifies_once(stack: Stack, notifier: Running, receiver: Receiver) -> None:
    task_id = send_push_notification.delay(7, "Hi", "once").id
    assert stack.state(task_id)["result"]["status"] == "sent"
    # As if its worker had died before it stored the result.
    results_client().delete(result_key(task_id))
    send_push_notification.apply_async((7, "Hi", "once"), task_id=task_id)
    wait_until(lambda: len(_runs(notifier, task_id)) == 2, 20, "the second run")
    assert {run["state"] for run in _runs(notifier, task_id)} == {"SUCCESS"}
    assert receiver.accepted[f"{task_id}-7"] == 1


def test_a_crash_before_recording_repeats_the_idempotency_key(
    stack: Stack, notifier: Running, receiver: Receiver
) -> None:
    backend: Any = celery_app.backend

    def kill_the_sender(request: Request) -> tuple[int, dict[str, str]] | None:
        receiver.script()
        # The receiver has accepted it, but its sender is killed before it knows. The claim would last 90 s.
        backend.client.pexpire(f"notification:{request.key}", 1500)
        for child in notifier.children():
            os.kill(child, signal.SIGKILL)
        return ACCEPTED

    receiver.respond = kill_the_sender
    task_id = send_push_notification.delay(7, "Hi", "again").id
    assert stack.state(task_id, timeout=60)["result"] == {"status": "sent", "user_id": 7}
    first, second = [request for request in receiver.requests if request.key == f"{task_id}-7"]
    assert first.body == second.body
    assert second.at - first.at >= 1.4, "the claim of the dead process delayed it"
