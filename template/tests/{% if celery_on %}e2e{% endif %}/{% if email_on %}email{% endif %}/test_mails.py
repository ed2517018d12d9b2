"""Mails from a real worker to a real mail server that is down or slow, or rejects a mail."""

from collections.abc import Iterator

import pytest

from app.tasks.send_email_task import send_email_task
from tests.e2e.conftest import Stack
from tests.e2e.mail_sink import HANGS, MailSink
from tests.e2e.processes import Running, start_worker, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[MailSink]:
    """Run a mail server."""
    running = MailSink()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def mailer(stack: Stack, server: MailSink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Replace the stack's worker by one that sends to the server."""
    stack.worker.stop()
    environment = {**stack.environment, "EMAIL_PORT": str(server.port), "EMAIL_TIMEOUT": "1"}
    worker = start_worker(tmp_path_factory.mktemp("mailer") / "mailer.log", **environment)
    yield worker
    worker.stop()
    stack.worker = start_worker(stack.worker.log, **stack.environment)


def test_a_mail_is_accepted_once_after_failed_attempts(stack: Stack, mailer: Running, server: MailSink) -> None:
    server.answers = ["451 greylisted", HANGS]
    state = stack.state(send_email_task.delay("busy@example.com", "s", "b").id)
    assert state["result"] == {"status": "sent", "recipient": "busy@example.com"}
    assert server.recipients.count("busy@example.com") == 3
    assert server.accepted.count("busy@example.com") == 1


def test_a_mail_is_sent_when_the_server_is_up_again(stack: Stack, mailer: Running, server: MailSink) -> None:
    server.stop()
    try:
        task_id = send_email_task.delay("down@example.com", "s", "b").id
        wait_until(lambda: stack.http.get(f"/task/{task_id}").json()["status"] == "RETRY", 20, "an attempt")
    finally:
        server.start()
    assert stack.state(task_id, timeout=60)["status"] == "SUCCESS"
    assert server.accepted.count("down@example.com") == 1


def test_a_permanent_rejection_is_not_retried(stack: Stack, mailer: Running, server: MailSink) -> None:
    server.answers = ["550 no such user"]
    state = stack.state(send_email_task.delay("nobody@example.com", "s", "b").id)
    assert (state["status"], state["error"]["type"]) == ("FAILURE", "MailError")
    assert "550 no such user" in state["error"]["message"]
    # A later mail has been sent: there was no retry in between.
    assert stack.state(send_email_task.delay("later@example.com", "s", "b").id)["status"] == "SUCCESS"
    assert server.recipients.count("nobody@example.com") == 1


def test_a_mail_is_retried_after_the_soft_time_limit(stack: Stack, mailer: Running, server: MailSink) -> None:
    server.answers = [HANGS]
    # As with a long EMAIL_TIMEOUT: the task reaches its soft time limit first.
    task_id = send_email_task.apply_async(("slow@example.com", "s", "b"), soft_time_limit=0.5).id
    assert stack.state(task_id)["status"] == "SUCCESS"
    assert server.accepted.count("slow@example.com") == 1
