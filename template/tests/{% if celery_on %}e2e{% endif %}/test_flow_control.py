"""Flow control with real workers, which are killed."""

import asyncio
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import states

from app.core.celery import celery_app
from app.worker.flow_control import Duplicate
from app.worker.publish import cancel_many
from app.worker.status import read_status
from tests.e2e import redis_faults as faults
from tests.e2e.conftest import FAST, Stack
from tests.e2e.processes import Running, start_worker, wait_until

TASKS = 20


class Fleet:
    """Workers of this module's own, and what its tasks have done."""

    def __init__(self, folder: Path, broker: Any, cache_client: Any) -> None:
        self.folder, self.broker, self.cache = folder, broker, cache_client
        self.workers: list[Running] = []

    def start(self, pool: str = "prefork", **environment: str) -> Running:
        """Start a worker."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        self.workers.append(start_worker(log, pool=pool, **{**FAST, **environment}))
        return self.workers[-1]

    @property
    def peak(self) -> int:
        """The most of the tasks that ran at the same time."""
        return int(self.cache.zscore("probe:peaks", "flow") or 0)

    def done(self, *numbers: int) -> bool:
        """Return whether the tasks of these numbers have run."""
        return None not in self.cache.hmget("probe:marks", numbers)

    def started(self, number: int) -> bool:
        """Return whether the task of that number has started."""
        return bool(self.cache.hexists("probe:starts", number))

    def waiting(self) -> int:
        """Return how many messages wait for a rule."""
        return sum(map(int, self.broker.hvals("flow:depths")))

    def end(self) -> None:
        """Let the tasks end that run for long."""
        self.cache.set("probe:flow:end", 1)

    def has_nothing_left(self) -> bool:
        """Return whether no rule has anything left of the tasks that have ended."""
        slots = [name for name in self.broker.keys("flow:*") if name.endswith((b":slots", b":waiting", b":woken"))]
        return not (slots or self.broker.exists("flow:waiting", "flow:depths", "unacked"))


@pytest.fixture
def fleet(broker: Any, cache_client: Any, tmp_path: Path) -> Iterator[Fleet]:
    """Give workers, and stop them after the test."""
    broker.flushdb()
    cache_client.flushdb()
    made = Fleet(tmp_path, broker, cache_client)
    yield made
    for worker in made.workers:
        worker.stop()


@pytest.mark.parametrize(
    ("pool", "task", "limit"), [("prefork", "concurrent", 2), ("threads", "single", 1), ("threads", "single_async", 1)]
)
def test_workers_together_keep_to_the_limit_and_leave_nothing_behind(
    fleet: Fleet, probe_task: Any, pool: str, task: str, limit: int
) -> None:
    for _ in range(2):
        fleet.start(pool)
    for number in range(TASKS):
        probe_task(task).delay(number)
    wait_until(lambda: fleet.done(*range(TASKS)), 60, "all tasks")
    assert fleet.peak == limit
    wait_until(fleet.has_nothing_left, 20, "nothing to be left")


def test_with_kombus_transport_too(fleet: Fleet, probe_task: Any) -> None:
    fleet.start(CELERY_TRANSPORT="kombu")
    for number in range(TASKS):
        probe_task("concurrent").delay(number)
    wait_until(lambda: fleet.done(*range(TASKS)), 60, "all tasks")
    assert fleet.peak == 2
    wait_until(fleet.has_nothing_left, 20, "nothing to be left")


def test_what_waits_keeps_no_worker_busy(fleet: Fleet, probe_task: Any) -> None:
    fleet.start()
    probe_task("single").delay(0, 50)
    wait_until(lambda: fleet.started(0), 20, "the first task to start")
    for number in range(1, 100):
        probe_task("single").delay(number, 0)
    wait_until(lambda: fleet.waiting() == 99, 30, "the others to wait")
    echo = probe_task("echo").delay(1)
    wait_until(lambda: _state(echo.id) == states.SUCCESS, 4, "another task to run")
    assert not fleet.done(0)
    fleet.end()
    wait_until(lambda: fleet.done(*range(100)), 60, "all tasks")
    assert fleet.peak == 1


def test_a_killed_worker_frees_its_slot_within_the_visibility_timeout(fleet: Fleet, probe_task: Any) -> None:
    killed = fleet.start()
    probe_task("single").delay(1, 60)
    wait_until(lambda: fleet.started(1), 20, "the first task to start")
    fleet.start()
    probe_task("single").delay(2)
    wait_until(lambda: fleet.waiting() == 1, 20, "the second task to wait")
    killed.signal(signal.SIGKILL)
    fleet.cache.delete("probe:flow:running")
    # It is redelivered too: after the timeout and 5 s between two looks.
    wait_until(lambda: fleet.done(2), 5 + 3, "the second task to run")
    wait_until(lambda: fleet.done(1, 2), 15, "the first task to be redelivered")
    assert fleet.peak == 1
    wait_until(fleet.has_nothing_left, 20, "nothing to be left")


def test_a_killed_process_frees_its_slot_at_once(fleet: Fleet, probe_task: Any) -> None:
    worker = fleet.start()
    # With one process the other would wait for the first one's next process.
    probe_task("single").delay(1, 60, key="a")
    probe_task("single").delay(2, 60, key="b")
    wait_until(lambda: fleet.started(1) and fleet.started(2), 20, "both tasks to start")
    for number in (3, 4):
        probe_task("single").delay(number, key="a")
    for process in worker.children():
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: fleet.done(1, 2, 3, 4), 15, "all tasks to run")
    wait_until(fleet.has_nothing_left, 20, "nothing to be left")


def test_a_task_that_is_killed_by_its_time_limit_frees_its_key(fleet: Fleet, probe_task: Any) -> None:
    fleet.start()
    first = probe_task("unique").delay(1, 60)
    wait_until(lambda: fleet.started(1), 20, "the task to start")
    assert probe_task("unique").delay(1).id == first.id
    wait_until(lambda: _state(first.id) == states.FAILURE, 20, "the time limit")
    second = probe_task("unique").delay(1)
    assert not isinstance(second, Duplicate)
    wait_until(lambda: _state(second.id) == states.SUCCESS, 20, "the second task")


def test_a_stopped_worker_returns_what_it_holds(fleet: Fleet, probe_task: Any) -> None:
    worker = fleet.start(CELERY_SOFT_SHUTDOWN_TIMEOUT="0.5")
    for number in range(3):
        probe_task("single").delay(number, 30 if number == 0 else 0)
    wait_until(lambda: fleet.started(0), 20, "the first task to start")
    worker.stop()
    fleet.start()
    wait_until(lambda: fleet.done(0, 1, 2), 10, "all tasks to run")


def test_a_throttled_task_starts_no_more_often_in_any_period(fleet: Fleet, probe_task: Any) -> None:
    for _ in range(2):
        fleet.start("threads")
    for number in range(9):
        probe_task("throttled").delay(number)
    wait_until(lambda: fleet.done(*range(9)), 20, "all tasks")
    times = sorted(float(line.split()[0]) for line in fleet.cache.lrange("probe:flow:starts", 0, -1))
    # Measured in the task, a little after its start.
    assert all(later - earlier > 1.8 for earlier, later in zip(times, times[3:], strict=False)), times
    assert times[-1] - times[0] < 7


def test_cancelled_tasks_that_wait_for_a_rule_use_none_of_its_places(fleet: Fleet, probe_task: Any) -> None:
    worker = fleet.start("threads")
    queued = [probe_task("throttled").delay(number).id for number in range(60)]
    wait_until(lambda: fleet.waiting() == 57, 20, "all but three to wait")
    # The next worker does not know Celery's broadcast.
    worker.stop()
    cancelled = [number for number in range(59) if not fleet.done(number)]
    assert len(cancelled) > 45
    asyncio.run(cancel_many([queued[number] for number in cancelled]))
    fleet.start("threads")
    # With their places it would take 30 s.
    wait_until(lambda: fleet.done(59), 10, "the last one to run")
    wait_until(fleet.has_nothing_left, 20, "nothing to be left")
    assert not any(fleet.done(number) for number in cancelled)


def test_of_debounced_calls_the_last_one_runs_once(fleet: Fleet, probe_task: Any) -> None:
    fleet.start()
    results = [probe_task("debounced").delay(number) for number in range(10)]
    wait_until(lambda: fleet.done(9), 15, "the last one to run")
    for result in results[:-1]:
        wait_until(partial(_is_revoked, result.id), 10, "the others to be superseded")
    assert fleet.cache.hkeys("probe:marks") == [b"9"]


def test_a_refusal_of_redis_loses_neither_tasks_nor_the_limit(fleet: Fleet, probe_task: Any) -> None:
    fleet.start()
    for number in range(TASKS):
        probe_task("concurrent").delay(number, 0.3)
    wait_until(lambda: fleet.cache.hlen("probe:starts") > 4, 20, "some tasks to start")
    fleet.broker.execute_command("CLIENT", "PAUSE", "3000", "WRITE")
    wait_until(lambda: fleet.done(*range(TASKS)), 60, "all tasks")
    assert fleet.peak == 2
    wait_until(fleet.has_nothing_left, 20, "nothing to be left")


def test_what_waits_outlives_a_restart_of_redis(fleet: Fleet, probe_task: Any) -> None:
    with faults.running_server(fleet.folder / "redis") as (server, client):
        fleet.start(CELERY_BROKER_URL=server.url(1))
        fleet.broker = client
        with celery_app.connection_for_write(server.url(1)) as connection:
            probe_task("single").apply_async((0, 50), connection=connection)
            wait_until(lambda: fleet.started(0), 20, "the first task to start")
            for number in range(1, 5):
                probe_task("single").apply_async((number, 0), connection=connection)
        wait_until(lambda: fleet.waiting() == 4, 20, "the others to wait")
        server.restart(client)
        assert fleet.waiting() == 4
        fleet.end()
        wait_until(lambda: fleet.done(*range(5)), 40, "all tasks")
        assert fleet.peak == 1
        wait_until(fleet.has_nothing_left, 20, "nothing to be left")
        fleet.workers[-1].stop()


def test_a_message_of_a_newer_release_waits_for_its_worker(fleet: Fleet, probe_task: Any) -> None:
    worker = fleet.start(CELERY_UNKNOWN_TASK_WAIT="2")
    newer = probe_task("versioned").app.send_task("probe.versioned", queue="default", headers={"payload_version": 3})
    wait_until(lambda: worker.lines("unknown_task_requeued"), 20, "it to be requeued")
    wait_until(lambda: _state(newer.id) == states.FAILURE, 20, "it to fail")
    known = probe_task("versioned").delay()
    wait_until(lambda: _state(known.id) == states.SUCCESS, 20, "the known version to run")


def test_a_task_logs_the_id_of_the_request_that_queued_it(stack: Stack) -> None:
    answer = stack.http.post("/process", json={"a": 1}, headers={"X-Request-ID": "flow-1"})
    assert answer.headers["X-Request-ID"] == "flow-1"

    def logged() -> bool:
        return any(line.get("request_id") == "flow-1" for line in stack.worker.lines("task_finished"))

    wait_until(logged, 10, "the line of the task")


def _is_revoked(task_id: str) -> bool:
    return bool(_state(task_id) == states.REVOKED)


def _state(task_id: str) -> str | None:
    status = read_status(task_id)
    return status.status if status else None
