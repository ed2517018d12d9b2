"""Revoked tasks do not run, whichever worker gets them, and a state that says how a task ended never changes."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.worker.publish import cancel
from app.worker.status import read_status
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_worker, wait_until

Start = Callable[..., Running]


@pytest.fixture
def start(broker: Any, tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a worker, with a pool of its own where one is named."""
    running: list[Running] = []

    def one(pool: str = "prefork") -> Running:
        running.append(start_worker(tmp_path / f"{len(running)}.log", pool=pool, **FAST))
        return running[-1]

    yield one
    for worker in running:
        worker.stop()


def _status(task_id: str) -> str:
    status = read_status(task_id)
    return status.status if status else "UNKNOWN"


def _runs(cache_client: Any, number: int) -> int:
    return int(cache_client.hget("probe:marks", str(number)) or 0)


def _cancel(task_id: str, **options: Any) -> str:
    status = asyncio.run(cancel(task_id, **options))
    assert status is not None
    return status.status


def _all_gone(broker: Any) -> None:
    wait_until(
        lambda: not broker.llen("default") and not broker.hlen("unacked"), 20, "every message to be acknowledged"
    )


def test_a_revoked_task_is_stopped_by_workers_that_start_later(
    start: Start, broker: Any, probe_task: Any, cache_client: Any
) -> None:
    cache_client.delete("probe:marks")
    waiting = probe_task("mark").delay(1).id
    assert _cancel(waiting) == "REVOKED"
    first = start()
    wait_until(lambda: not broker.llen("default") and not broker.hlen("unacked"), 20, "the message to be acknowledged")
    counting = probe_task("mark").apply_async((2,), countdown=4)
    wait_until(lambda: broker.hlen("unacked"), 20, "the worker to hold the task with a countdown")
    # As Flower and others do it.
    counting.revoke()
    wait_until(lambda: _status(counting.id) == "REVOKED", 20, "the worker to revoke it")
    running = probe_task("mark").delay(3, 60)
    wait_until(lambda: _status(running.id) == "STARTED", 20, "the task to start")
    _cancel(running.id)
    wait_until(lambda: _status(running.id) == "REVOKED", 20, "the task to be ended")
    first.stop()
    start()
    _all_gone(broker)
    assert [_status(task_id) for task_id in (waiting, counting.id, running.id)] == ["REVOKED"] * 3
    assert [_runs(cache_client, number) for number in (1, 2, 3)] == [0, 0, 0]


def test_what_has_ended_or_cannot_be_ended_says_so(
    start: Start, broker: Any, probe_task: Any, cache_client: Any
) -> None:
    cache_client.delete("probe:marks")
    start("threads")
    done = probe_task("mark").delay(1)
    wait_until(lambda: _status(done.id) == "SUCCESS", 20, "the task to end")
    assert _cancel(done.id) == "SUCCESS"
    done.revoke()
    running = probe_task("mark").delay(2, 1.5)
    wait_until(lambda: _status(running.id) == "STARTED", 20, "the task to start")
    assert _cancel(running.id) == "STARTED"
    wait_until(lambda: _status(running.id) == "SUCCESS", 20, "the task to end")
    _all_gone(broker)
    assert _status(done.id) == "SUCCESS"
    assert [_runs(cache_client, number) for number in (1, 2)] == [1, 1]
    assert asyncio.run(cancel("never-queued")) is None
