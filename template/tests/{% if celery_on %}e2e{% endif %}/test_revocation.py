"""Revoked tasks do not run, whichever worker gets them, and a state that says how a task ended never changes."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.worker import history
from app.worker.publish import RetryRefused, cancel, retry
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


def _retry(task_id: str) -> str:
    result = asyncio.run(retry(task_id))
    assert result is not None
    return str(result.id)


def _retry_when_stored(task_id: str) -> str:
    """Retry a task that was cancelled while it waited, as soon as a worker has dropped its message."""

    def retried() -> str | None:
        try:
            return _retry(task_id)
        except RetryRefused:
            return None

    return str(wait_until(retried, 20, "the message to be stored"))


@pytest.mark.parametrize(("pool", "task"), [("prefork", "interrupted"), ("threads", "async_mark")])
def test_a_running_task_that_was_cancelled_runs_again_when_it_is_retried(
    start: Start, broker: Any, probe_task: Any, cache_client: Any, pool: str, task: str
) -> None:
    cache_client.delete("probe:marks", "probe:starts")
    start(pool)
    cancelled = probe_task(task).delay(1, 60).id
    wait_until(lambda: cache_client.hexists("probe:starts", "1"), 20, "the task to start")
    assert _cancel(cancelled) in {"STARTED", "REVOKED"}
    wait_until(lambda: _status(cancelled) == "REVOKED", 20, "the task to be ended")
    assert _runs(cache_client, 1) == 0
    again = _retry(cancelled)
    wait_until(lambda: _status(again) == "SUCCESS", 20, "the retry to end")
    record = history.read(again)
    assert record is not None
    assert (record.replay_of, record.kwargs, _runs(cache_client, 1)) == (cancelled, "{}", 1)
    assert (_status(cancelled), _retry(cancelled)) == ("REVOKED", again)
    _all_gone(broker)


def test_what_ended_before_or_around_its_run_can_be_retried(
    start: Start, broker: Any, probe_task: Any, cache_client: Any
) -> None:
    cache_client.delete("probe:marks")
    waiting = probe_task("mark").delay(1).id
    assert _cancel(waiting) == "REVOKED"
    start()
    again = _retry_when_stored(waiting)
    wait_until(lambda: _status(again) == "SUCCESS", 20, "the retry to end")
    assert _runs(cache_client, 1) == 1
    # The worker's main process stores its end.
    killed = probe_task("hard_limit").delay().id
    wait_until(lambda: _status(killed) == "FAILURE", 20, "the time limit")
    again = _retry(killed)
    wait_until(lambda: _status(again) == "FAILURE", 20, "the time limit")
    assert again != killed


def test_a_task_that_is_cancelled_as_it_starts_either_runs_or_is_revoked(
    start: Start, broker: Any, probe_task: Any, cache_client: Any
) -> None:
    cache_client.delete("probe:marks")
    start("threads")
    started = {}
    for number in range(200):
        task_id = probe_task("mark").delay(number, 0).id
        started[number] = task_id
        _cancel(task_id)
    wait_until(lambda: all(_status(one) in {"SUCCESS", "REVOKED"} for one in started.values()), 30, "all to end")
    _all_gone(broker)
    outcomes = {number: _status(task_id) for number, task_id in started.items()}
    assert {number for number in started if _runs(cache_client, number)} == {
        number for number, state in outcomes.items() if state == "SUCCESS"
    }
