"""A worker that is told to stop ends in time, and nothing that it held waits for the visibility timeout."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.celery import celery_app
from app.worker.shutdown import KILL_AFTER
from tests.e2e.processes import Running, start_worker, wait_until

GRACE = 2.0
# Were anything to wait for the visibility timeout, it would wait longer than these tests do.
SLOW = {"CELERY_SOFT_SHUTDOWN_TIMEOUT": str(GRACE), "CELERY_VISIBILITY_TIMEOUT": "3600", "LOG_LEVEL": "DEBUG"}


@pytest.fixture
def clean(broker: Any, cache_client: Any) -> Iterator[None]:
    """Start and end with an empty broker."""
    broker.flushdb()
    cache_client.delete("probe:marks", "probe:starts")
    yield
    broker.flushdb()


def _waiting(broker: Any) -> set[int]:
    """Return the first arguments of the tasks in the queue."""
    messages = [json.loads(message) for message in broker.lrange("default", 0, -1)]
    return {int(json.loads(base64.b64decode(message["body"]))[0][0]) for message in messages}


def _marks(cache_client: Any) -> dict[bytes, bytes]:
    return dict(cache_client.hgetall("probe:marks"))


def _stop(worker: Running) -> float:
    """Tell the worker to stop as a supervisor does, and return how long it took."""
    start = time.monotonic()
    worker.process.terminate()
    worker.process.wait(60)
    return time.monotonic() - start


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@pytest.mark.usefixtures("clean")
def test_what_cannot_finish_goes_back_and_another_worker_runs_it_at_once(
    pool: str, broker: Any, cache_client: Any, probe_task: Any, tmp_path: Path
) -> None:
    worker = start_worker(tmp_path / "first.log", pool=pool, **SLOW)
    try:
        # 1 in an hour, 2 takes longer than a worker is given, 3 does not, 4 may wait in the worker.
        probe_task("mark").apply_async((1,), countdown=3600)
        long = probe_task("interrupted").apply_async((2, 60)).id
        wait_until(lambda: worker.lines("task_started"), 20, "the long task to start")
        probe_task("mark").apply_async((3, 1))
        if pool != "solo":
            wait_until(lambda: len(worker.lines("task_started")) == 2, 20, "the short task to start")
        probe_task("mark").apply_async((4, 0.1))
        took = _stop(worker)
    finally:
        worker.stop()
    assert GRACE <= took < GRACE + KILL_AFTER
    # The short one was finished, and acknowledged.
    done = set() if pool == "solo" else {3}
    assert {int(number) for number in _marks(cache_client)} == done
    assert _waiting(broker) == {1, 2, 3, 4} - done
    assert not broker.hlen("unacked")
    # The one that had begun: that it was stopped is not its fault.
    assert celery_app.backend.client.get(f"redelivered:{long}") == b"-1"
    second = start_worker(tmp_path / "second.log", pool=pool, **SLOW)
    try:
        wait_until(lambda: len(_marks(cache_client)) == 3, 40, "the other worker to run them")
    finally:
        second.stop()
    assert _marks(cache_client) == {b"2": b"1", b"3": b"1", b"4": b"1"}
    assert _waiting(broker) == {1}


@pytest.mark.usefixtures("clean")
def test_a_worker_that_has_finished_waits_for_nothing(probe_task: Any, cache_client: Any, tmp_path: Path) -> None:
    worker = start_worker(tmp_path / "worker.log", **{**SLOW, "CELERY_SOFT_SHUTDOWN_TIMEOUT": "30"})
    try:
        probe_task("mark").apply_async((1, 1))
        probe_task("mark").apply_async((2,), countdown=3600)
        wait_until(lambda: worker.lines("task_started"), 20, "the task to start")
        assert _stop(worker) < 15
    finally:
        worker.stop()
    assert _marks(cache_client) == {b"1": b"1"}


@pytest.mark.usefixtures("clean")
def test_a_task_that_does_not_listen_is_killed_and_goes_back(
    broker: Any, cache_client: Any, probe_task: Any, tmp_path: Path
) -> None:
    worker = start_worker(tmp_path / "worker.log", **SLOW)
    try:
        probe_task("stubborn").apply_async((1, 60))
        wait_until(lambda: worker.lines("task_started"), 20, "the task to start")
        assert GRACE + KILL_AFTER <= _stop(worker) < GRACE + KILL_AFTER + 5
    finally:
        worker.stop()
    assert _waiting(broker) == {1}
    assert not broker.hlen("unacked")
    assert _marks(cache_client) == {}


@pytest.mark.usefixtures("clean")
def test_celerys_own_soft_shutdown_is_there_for_who_asks_for_it(
    broker: Any, cache_client: Any, probe_task: Any, tmp_path: Path
) -> None:
    worker = start_worker(tmp_path / "worker.log", **SLOW, REMAP_SIGTERM="SIGQUIT")
    try:
        probe_task("mark").apply_async((1, 30))
        wait_until(lambda: worker.lines("task_started"), 20, "the task to start")
        assert GRACE <= _stop(worker) < GRACE + KILL_AFTER
    finally:
        worker.stop()
    assert _waiting(broker) == {1}
    assert _marks(cache_client) == {}
