"""A run of a task: its round trips to Redis, what keeps it from running, and its line in the log."""

import contextlib
import logging
import secrets
import threading
import uuid
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import redis
import structlog
from celery import states
from celery.app.trace import trace_task
from celery.exceptions import Ignore, Reject

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.worker import logs, redelivery, revocation
from app.worker.broker import result_key, results_client
from app.worker.status import read_status


class Runs:
    """A task with a result and one without, that count how often they ran."""

    def __init__(self) -> None:
        self.number = 0
        self.with_result: Any = celery_app.task(name="test.with_result")(self._count)
        self.without_result: Any = celery_app.task(name="test.without_result", ignore_result=True)(self._count)

    def _count(self) -> None:
        self.number += 1

    def deliver(self, task: Any, task_id: str, *, redelivered: bool = False, **headers: object) -> None:
        """Run the task as a worker does."""
        delivery = {"routing_key": "default", "redelivered": redelivered}
        request = {
            "id": task_id,
            "retries": 0,
            "ignore_result": task.ignore_result,
            "delivery_info": delivery,
            **headers,
        }
        trace_task(task, task_id, (), {}, request, app=celery_app)


@pytest.fixture
def runs() -> Iterator[Runs]:
    """Give the two tasks."""
    made = Runs()
    yield made
    celery_app.tasks.unregister(made.with_result)
    celery_app.tasks.unregister(made.without_result)


@pytest.fixture
def revoked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a process that has not read any revocation."""
    made: Any = revocation._Revoked()
    monkeypatch.setattr("app.worker.revocation._revoked", made)
    return made


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Give the commands that are sent to Redis from now on."""
    sent: list[bytes] = []
    send: Any = redis.Connection.send_packed_command

    def count(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        sent.append(b"".join(command if isinstance(command, list) else [command]))
        return send(self, command, *args, **kwargs)

    monkeypatch.setattr(redis.Connection, "send_packed_command", count)
    return sent


@pytest.fixture(params=["with_result", "without_result"])
def task(runs: Runs, request: pytest.FixtureRequest) -> Any:
    """Give each of the tasks."""
    return getattr(runs, request.param)


def _status(task_id: str) -> str | None:
    known = read_status(task_id)
    return known.status if known else None


def test_a_task_takes_two_round_trips_and_one_without_a_result_none(
    runs: Runs, revoked: Any, round_trips: list[bytes]
) -> None:
    for task in (runs.with_result, runs.without_result):
        # The connections are opened, Redis gets the scripts, and the process reads the list of revocations.
        runs.deliver(task, str(uuid.uuid4()))
        runs.deliver(task, str(uuid.uuid4()), redelivered=True)
    round_trips.clear()
    task_id = str(uuid.uuid4())
    runs.deliver(runs.with_result, task_id, redelivered=True)
    assert len(round_trips) == 2
    assert all(b"EVALSHA" in command for command in round_trips)
    assert _status(task_id) == states.SUCCESS
    round_trips.clear()
    runs.deliver(runs.without_result, str(uuid.uuid4()))
    assert round_trips == []


def test_a_process_looks_up_tasks_while_another_one_reads_older_revocations(
    runs: Runs, revoked: Any, round_trips: list[bytes]
) -> None:
    client = results_client()
    task_id = str(uuid.uuid4())
    client.set(revocation.key(task_id), 1, ex=100)
    client.delete("revocations/version")
    client.set("revocations/importing", 1, ex=100)
    for one in (task_id, str(uuid.uuid4())):
        runs.deliver(runs.without_result, one)
    assert runs.number == 1
    assert not [command for command in round_trips if b"SCAN" in command]
    client.delete("revocations/importing")


def test_threads_wait_for_the_list_that_one_of_them_reads(revoked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, answer = threading.Event(), threading.Event()
    found: list[bool] = []

    def read(*_: object) -> list[object]:
        reads.set()
        assert answer.wait(20)
        return [b"1", [b"x"]]

    monkeypatch.setattr("app.worker.revocation._READ", read)
    threads = [threading.Thread(target=lambda: found.append(revocation.is_listed("x"))) for _ in range(2)]
    threads[0].start()
    assert reads.wait(20)
    threads[1].start()
    threads[1].join(0.2)
    answer.set()
    for thread in threads:
        thread.join(20)
    assert found == [True, True]


def test_started_is_stored_for_a_user_of_the_keys_of_results_alone(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr("app.worker.start.check", lambda _, task_id: seen.append(_status(task_id)))
    admin, name = results_client(), f"user-{secrets.token_hex(4)}"
    admin.acl_setuser(name, enabled=True, nopass=True, keys=["celery*"], channels=["*"], categories=["+@all"])
    options = {**admin.connection_pool.connection_kwargs, "username": name, "password": "x"}
    try:
        with redis.Redis(connection_pool=redis.ConnectionPool(**options)) as client, monkeypatch.context() as patched:
            patched.setattr(celery_app.backend, "client", client)
            runs.deliver(runs.with_result, str(uuid.uuid4()))
    finally:
        admin.acl_deluser(name)
    assert seen == [states.STARTED]


def test_a_revoked_task_does_not_run(runs: Runs, revoked: Any, task: Any) -> None:
    task_id = str(uuid.uuid4())
    revocation.store([task_id])
    runs.deliver(task, task_id)
    assert (runs.number, _status(task_id)) == (0, states.REVOKED)


def test_a_header_does_not_replace_the_check(runs: Runs, revoked: Any, task: Any) -> None:
    task_id = str(uuid.uuid4())
    revocation.store([task_id])
    runs.deliver(task, task_id, start=[False, 0])
    assert runs.number == 0


def test_a_revocation_is_noticed_when_the_list_is_read_again(
    runs: Runs, revoked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    runs.deliver(runs.without_result, first)
    revocation.store([second])
    monkeypatch.setattr("app.worker.revocation.REFRESH_AFTER", -1)
    runs.deliver(runs.without_result, second)
    assert runs.number == 1


def test_more_revocations_than_a_process_remembers_are_looked_up(
    runs: Runs, revoked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.revocation.MAX_LISTED", 1)
    task_ids = [str(uuid.uuid4()) for _ in range(3)]
    revocation.store(task_ids)
    for task_id in [*task_ids, str(uuid.uuid4())]:
        runs.deliver(runs.without_result, task_id)
    assert runs.number == 1


def test_a_revocation_of_an_earlier_release_is_noticed_and_expires_as_stored(runs: Runs, revoked: Any) -> None:
    client = results_client()
    task_id = str(uuid.uuid4())
    client.set(revocation.key(task_id), 1, ex=100)
    client.delete("revocations/version", "revocations/importing")
    runs.deliver(runs.without_result, task_id)
    assert runs.number == 0
    assert client.ttl(revocation.key(task_id)) <= 100
    assert client.zscore("revocations", task_id) <= client.time()[0] + 100
    assert 0 < client.ttl("revocations/version") <= 86400, "others may still be stored by a process of that release"


def test_an_expired_revocation_leaves_the_list() -> None:
    client = results_client()
    client.zadd("revocations", {"expired": client.time()[0] - 1})
    revocation.store(["other"])
    assert client.zscore("revocations", "expired") is None


def test_a_task_runs_whose_revocation_cannot_be_looked_up(
    runs: Runs, revoked: Any, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise redis.exceptions.ConnectionError("Redis is gone")

    with monkeypatch.context() as patched:
        patched.setattr("app.worker.result_backend._START", refuse)
        # Restored: after a refusal, STARTED is not written for a while.
        patched.setattr(celery_app.backend, "_information_refused_at", float("-inf"))
        patched.setattr("app.worker.revocation._READ", refuse)
        patched.setattr("app.worker.revocation.is_stored", refuse)
        runs.deliver(task, str(uuid.uuid4()))
    assert runs.number == 1


def test_a_redelivery_is_counted_with_started_and_without(runs: Runs, task: Any) -> None:
    task_id = secrets.token_hex(8)
    for _ in range(celery_settings.max_redeliveries + 2):
        runs.deliver(task, task_id, redelivered=True)
        # As if its worker had died before.
        results_client().delete(result_key(task_id))
    assert runs.number == celery_settings.max_redeliveries
    assert 0 < results_client().ttl(redelivery.key(task_id)) <= redelivery.COUNTED_FOR


def test_a_second_delivery_after_success_runs_only_without_a_result(runs: Runs, task: Any) -> None:
    task_id = secrets.token_hex(8)
    for redelivered in (False, False, True):
        runs.deliver(task, task_id, redelivered=redelivered)
    assert runs.number == (1 if task is runs.with_result else 3)


def test_whoever_has_subscribed_is_sent_every_state(runs: Runs) -> None:
    task_id = str(uuid.uuid4())
    backend: Any = celery_app.backend
    with results_client().pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(backend.get_key_for_task(task_id))
        channel.get_message(timeout=5)
        runs.deliver(runs.with_result, task_id)
        messages = [channel.get_message(timeout=1) for _ in range(4)]
    assert [backend.decode(message["data"])["status"] for message in messages if message] == [
        states.STARTED,
        states.SUCCESS,
    ]


def _end(how: str) -> None:
    errors = {"fail": ValueError("no"), "ignore": Ignore("no"), "reject": Reject("no"), "exit": SystemExit(1)}
    if how in errors:
        raise errors[how]


def _run(how: str, level: int = logging.INFO, **headers: object) -> list[Any]:
    """Run a task as a worker does, and return its log lines."""
    task: Any = celery_app.task(name="test.logged", ignore_result=True, log_level=level)(_end)
    delivery = {"routing_key": "high", "redelivered": False}
    request = {"id": "x", "retries": 0, "ignore_result": True, "delivery_info": delivery, **headers}
    try:
        with (
            # One that was used before keeps the processors that it had then.
            patch.object(logs, "_logger", structlog.get_logger()),
            structlog.testing.capture_logs() as lines,
            pytest.raises(SystemExit) if how == "exit" else contextlib.nullcontext(),
        ):
            trace_task(task, "x", (how,), {}, request, app=celery_app)
    finally:
        celery_app.tasks.unregister(task)
    assert structlog.contextvars.get_contextvars() == {}
    return list(lines)


@pytest.mark.parametrize(
    ("how", "state"),
    [
        ("succeed", "SUCCESS"),
        ("fail", "FAILURE"),
        ("ignore", "IGNORED"),
        ("reject", "REJECTED"),
        ("exit", None),
    ],
)
def test_a_run_is_logged_when_it_ends_whatever_its_end(how: str, state: str | None) -> None:
    start, end = _run(how)
    assert (start["event"], start["log_level"]) == ("task_started", "debug")
    assert (end["event"], end["log_level"], end["state"]) == ("task_finished", "info", state)


def test_a_line_has_the_queue_the_wait_and_the_attempt() -> None:
    _, end = _run("succeed", retries=2, published_at=0)
    assert (end["queue"], end["attempt"]) == ("high", 3)
    assert end["queue_wait"] > end["run_time"] >= 0


def test_a_task_runs_whatever_another_program_calls_published_at() -> None:
    _, end = _run("succeed", published_at="2026-11-29T03:30:00Z")
    assert (end["state"], end["queue_wait"]) == ("SUCCESS", None)


def test_a_task_may_log_at_another_level() -> None:
    assert [line["log_level"] for line in _run("succeed", logging.DEBUG)] == ["debug", "debug"]
