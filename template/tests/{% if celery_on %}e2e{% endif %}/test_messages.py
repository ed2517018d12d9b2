"""Messages that a worker cannot run, and tasks that it does not know."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord

from app.core.celery import celery_app
from app.worker import dead_letters
from app.worker.records import record_pending
from app.worker.status import read_status
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_worker, wait_until

SHORT = {**FAST, "CELERY_UNKNOWN_TASK_WAIT": "5"}


@pytest.fixture(scope="module", params=["prefork", "threads"])
def worker(request: pytest.FixtureRequest, broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give a worker."""
    running = start_worker(tmp_path_factory.mktemp("worker") / "worker.log", pool=request.param, **SHORT)
    yield running
    running.stop()


def _status(task_id: str) -> Any:
    return read_status(task_id)


def _ended(task_id: str) -> Any:
    wait_until(lambda: (found := _status(task_id)) is not None and found.ready, 20, f"{task_id} to end")
    return _status(task_id)


def _send(body: str, content_type: str = "application/json", **headers: Any) -> str:
    """Queue a message that this application's serializer refuses, and return its task's id."""
    task_id = str(uuid.uuid4())
    amqp: Any = celery_app.amqp
    made = amqp.as_task_v2(task_id, "probe.mark", (1,), {})
    record_pending([task_id])
    with celery_app.connection_for_write() as connection:
        connection.Producer().publish(
            body,
            routing_key="default",
            content_type=content_type,
            content_encoding="utf-8",
            headers={**made.headers, **headers},
            **made.properties,
        )
    return task_id


def test_a_message_that_cannot_be_run_is_dead_lettered_and_the_worker_survives(
    worker: Running, broker: Any, probe_task: Any
) -> None:
    broker.delete(*dead_letters.KEYS)
    pids = worker.process.pid, worker.children()
    sent = [
        _send(json.dumps([["a-secret", json.loads("[" * 130 + "]" * 130)], {}, {}])),
        _send("a-secret, which is no JSON"),
        _send("[[], {}, {}]", content_type="application/x-a-secret"),
        _send("[[], {}, {}]", eta="a-secret"),
    ]
    for task_id in sent:
        assert _ended(task_id).status == "FAILURE"
    assert _ended(probe_task("mark").delay(1).id).status == "SUCCESS"
    assert (worker.process.pid, worker.children()) == pids
    assert worker.process.poll() is None
    wait_until(lambda: broker.zcard(dead_letters.TIMES) == len(sent), 10, "all to be dead-lettered")
    assert {letter["headers"]["id"] for letter in dead_letters.read(broker)} == set(sent)
    wait_until(lambda: not broker.hlen("unacked"), 10, "all to be acknowledged")
    assert "a-secret" not in worker.text()


def test_an_unknown_task_ends_with_the_workflow_that_it_is_part_of(worker: Running, probe_task: Any) -> None:
    echo, collect = probe_task("echo"), probe_task("collect")
    unknown = celery_app.signature("probe.of_the_next_release", immutable=True)
    ends = [
        unknown.clone().apply_async(queue="default"),
        chord([echo.si(1), unknown.clone().set(queue="default")], collect.s()).apply_async(),
        chain(unknown.clone().set(queue="default"), echo.si(1), echo.si(2)).apply_async(),
    ]
    record_pending([end.id for end in ends])
    for end in ends:
        status = _ended(end.id)
        assert status.status == "FAILURE"
        assert "of_the_next_release" in status.error["message"]
    # Not at once: another worker might have known it.
    assert worker.lines("unknown_task_requeued")
