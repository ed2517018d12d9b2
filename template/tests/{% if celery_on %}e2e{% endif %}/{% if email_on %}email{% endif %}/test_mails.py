"""Mails from a real worker to a real mail server that is away, slow, busy, or says no."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from app.tasks.send_email_task import send_email_task
from tests.e2e.conftest import Stack
from tests.e2e.processes import Running, free_port, start_worker, wait_until

HANGS = ""


class _Server:
    """Answers each recipient as it is told to, and takes what comes then."""

    def __init__(self) -> None:
        self.port = free_port()
        self.answers: list[str] = []
        self.asked: list[str] = []
        self.taken: list[str] = []
        self.start()

    def start(self) -> None:
        # A controller runs once.
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    def stop(self) -> None:
        self._controller.stop()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        self.asked.append(address)
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer == HANGS:
            await asyncio.sleep(60)
        envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.taken += envelope.rcpt_tos
        return "250 OK"


@pytest.fixture(scope="module")
def server() -> Iterator[_Server]:
    """Run a mail server."""
    running = _Server()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def mailer(stack: Stack, server: _Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run a worker that sends to the server, in place of the one that sends to another."""
    stack.worker.stop()
    environment = {**stack.environment, "EMAIL_PORT": str(server.port), "EMAIL_TIMEOUT": "1"}
    worker = start_worker(tmp_path_factory.mktemp("mailer") / "mailer.log", **environment)
    yield worker
    worker.stop()
    stack.worker = start_worker(stack.worker.log, **stack.environment)


def test_a_busy_and_then_slow_server_gets_it_once(stack: Stack, mailer: Running, server: _Server) -> None:
    server.answers = ["451 greylisted", HANGS]
    state = stack.state(send_email_task.delay("busy@example.com", "s", "b").id)
    assert state["result"] == {"status": "sent", "recipient": "busy@example.com"}
    assert server.asked.count("busy@example.com") == 3
    assert server.taken.count("busy@example.com") == 1


def test_a_server_that_was_away_gets_it_when_it_is_back(stack: Stack, mailer: Running, server: _Server) -> None:
    server.stop()
    try:
        task_id = send_email_task.delay("away@example.com", "s", "b").id
        wait_until(lambda: stack.http.get(f"/task/{task_id}").json()["status"] == "RETRY", 20, "an attempt")
    finally:
        server.start()
    assert stack.state(task_id, timeout=60)["status"] == "SUCCESS"
    assert server.taken.count("away@example.com") == 1


def test_a_refusal_for_good_is_not_tried_again(stack: Stack, mailer: Running, server: _Server) -> None:
    server.answers = ["550 no such user"]
    state = stack.state(send_email_task.delay("nobody@example.com", "s", "b").id)
    assert (state["status"], state["error"]["type"]) == ("FAILURE", "MailError")
    assert "550 no such user" in state["error"]["message"]
    # A later mail is through: nothing is tried in between.
    assert stack.state(send_email_task.delay("later@example.com", "s", "b").id)["status"] == "SUCCESS"
    assert server.asked.count("nobody@example.com") == 1


def test_a_server_that_takes_its_time_at_every_step_is_tried_again(
    stack: Stack, mailer: Running, server: _Server
) -> None:
    server.answers = [HANGS]
    # As with a long EMAIL_TIMEOUT: the task's own time is over first.
    task_id = send_email_task.apply_async(("slow@example.com", "s", "b"), soft_time_limit=0.5).id
    assert stack.state(task_id)["status"] == "SUCCESS"
    assert server.taken.count("slow@example.com") == 1
