"""A broker that refuses commands or loses connections: workers go on, and lose no task and no acknowledgement."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.celery import celery_app
from tests.e2e import redis_faults as faults
from tests.e2e.processes import Running, start_worker, wait_until

# The default visibility timeout: no message may need it.
FAST = {"CELERY_VISIBILITY_HEARTBEAT": "1", "CELERY_LIVENESS_INTERVAL": "1"}
TASKS = 8

# What a fault does to the workers, and the pool that is busy; the worker with the other one is idle.
REFUSALS = [
    pytest.param(faults.replica, "prefork", id="READONLY"),
    pytest.param(faults.alone, "threads", id="NOREPLICAS"),
    pytest.param(faults.unsaved, "prefork", id="MISCONF"),
    pytest.param(faults.forbidden, "threads", id="NOPERM"),
]
LOST_CONNECTIONS = [
    pytest.param(faults.disconnected, "prefork", id="CLIENT KILL"),
    pytest.param("restart", "threads", id="LOADING"),
]
INTERRUPTIONS = [
    pytest.param(faults.paused, "prefork", id="CLIENT PAUSE"),
    pytest.param(faults.without_scripts, "threads", id="SCRIPT FLUSH"),
]


@dataclass
class Fleet:
    """A server with a worker of each pool, each with a queue."""

    server: faults.Server
    client: "redis.Redis"
    workers: dict[str, Running]
    probe_task: Callable[[str], Any]
    marks: Callable[[], dict[bytes, bytes]]

    def queue(self, pool: str, numbers: range, seconds: float = 0.01) -> None:
        """Queue marks for the worker of a pool."""
        with celery_app.connection_for_write(self.server.url(1)) as connection:
            for number in numbers:
                self.probe_task("mark").apply_async((number, seconds), queue=QUEUES[pool], connection=connection)

    def lines(self, event: str) -> dict[str, int]:
        """Return how often each worker has logged the event."""
        return {pool: len(worker.lines(event)) for pool, worker in self.workers.items()}

    def is_idle(self) -> bool:
        """Return whether everything is acknowledged."""
        return not self.client.hlen("unacked") and not any(self.client.llen(queue) for queue in QUEUES.values())

    def until_refused(self, before: dict[str, int]) -> None:
        """Return when each worker's consumer was refused."""
        wait_until(
            lambda: all(count > before[pool] for pool, count in self.lines("broker_refuses").items()),
            40,
            "both workers to be refused",
        )

    def until_all_ran(self, number: int) -> None:
        """Return when so many tasks have run and are acknowledged, and check that both workers are alive."""
        wait_until(lambda: len(self.marks()) == number, 30, "all tasks to run")
        wait_until(self.is_idle, 20, "all tasks to be acknowledged")
        assert [worker.process.poll() for worker in self.workers.values()] == [None] * len(self.workers)


QUEUES = {"prefork": "default", "threads": "high"}
OTHER = {"prefork": "threads", "threads": "prefork"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[faults.Server, "redis.Redis"]]:
    """Give a second Valkey for the queues; the marks are not in it."""
    with faults.running_server(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def workers(
    broker: Any, server: tuple[faults.Server, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Running]]:
    """Give a worker of each pool. The results of prefork are stored elsewhere, those of threads in the same Valkey."""
    folder = tmp_path_factory.mktemp("workers")
    url = server[0].url
    running = {
        "prefork": start_worker(folder / "p.log", "-Q", "default", **FAST, CELERY_BROKER_URL=url(1)),
        "threads": start_worker(
            folder / "t.log",
            *("-Q", "high"),
            pool="threads",
            **FAST,
            CELERY_BROKER_URL=url(1),
            CELERY_RESULT_BACKEND=url(2),
        ),
    }
    yield running
    for worker in running.values():
        worker.stop()


@pytest.fixture
def fleet(server: tuple[faults.Server, Any], workers: dict[str, Running], probe_task: Any, cache_client: Any) -> Fleet:
    """Give the fleet, with no marks."""
    cache_client.delete("probe:marks")
    return Fleet(server[0], server[1], workers, probe_task, lambda: dict(cache_client.hgetall("probe:marks")))


@pytest.mark.parametrize(("refuse", "busy"), REFUSALS)
def test_workers_outlive_a_refusal_and_acknowledge_what_ended(fleet: Fleet, refuse: Any, busy: str) -> None:
    before = fleet.lines("broker_refuses")
    fleet.queue(busy, range(TASKS), 0.3)
    wait_until(lambda: len(fleet.marks()) >= 2, 20, "some to run")
    end = refuse(fleet.client)
    try:
        fleet.until_refused(before)
        assert not fleet.is_idle()
    finally:
        end()
    fleet.queue(OTHER[busy], range(TASKS, TASKS + 1))
    fleet.until_all_ran(TASKS + 1)
    assert set(fleet.marks().values()) == {b"1"}


def test_workers_empty_a_full_redis(fleet: Fleet) -> None:
    fleet.queue("prefork", range(TASKS), 0.1)
    fleet.queue("threads", range(TASKS, 2 * TASKS), 0.1)
    wait_until(lambda: len(fleet.marks()) >= 2, 20, "some to run")
    end = faults.full(fleet.client)
    try:
        fleet.until_all_ran(2 * TASKS)
    finally:
        end()
    assert set(fleet.marks().values()) == {b"1"}


@pytest.mark.parametrize(("interrupt", "busy"), INTERRUPTIONS)
def test_workers_outlive_an_interruption(fleet: Fleet, interrupt: Any, busy: str) -> None:
    fleet.queue(OTHER[busy], range(TASKS, TASKS + 1))
    wait_until(fleet.marks, 20, "the other worker to be idle")
    fleet.queue(busy, range(TASKS), 0.2)
    wait_until(lambda: len(fleet.marks()) >= 3 and not fleet.client.llen(QUEUES[busy]), 20, "all to be taken")
    # Those that wait in the worker may wait for the end: Celery's loop, which hands them out, publishes a heartbeat.
    ended = min(len(fleet.marks()), TASKS)
    end = interrupt(fleet.client)
    try:
        wait_until(lambda: len(fleet.marks()) > ended, 20, "a task to end meanwhile")
    finally:
        end()
    fleet.queue(busy, range(TASKS + 1, TASKS + 2))
    fleet.queue(OTHER[busy], range(TASKS + 2, TASKS + 3))
    fleet.until_all_ran(TASKS + 3)
    assert set(fleet.marks().values()) == {b"1"}


@pytest.mark.parametrize(("lose", "busy"), LOST_CONNECTIONS)
def test_workers_outlive_a_lost_connection(fleet: Fleet, lose: Any, busy: str) -> None:
    fleet.queue(busy, range(TASKS), 0.3)
    wait_until(lambda: len(fleet.marks()) >= 2, 20, "some to run")
    if lose == "restart":
        fleet.server.restart(fleet.client)
    else:
        lose(fleet.client)
    fleet.queue(OTHER[busy], range(TASKS, TASKS + 1))
    fleet.until_all_ran(TASKS + 1)


def test_queued_tasks_outlive_a_redis_that_is_killed(tmp_path: Path, probe_task: Any, cache_client: Any) -> None:
    cache_client.delete("probe:marks")
    with faults.running_server(tmp_path / "redis") as (server, client):
        with celery_app.connection_for_write(server.url(1)) as connection:
            for number in range(TASKS):
                probe_task("mark").apply_async((number,), queue="default", connection=connection)
        # It writes its file to the disk once a second.
        assert client.waitaof(1, 0, 5000)[0] == 1
        server.kill()
        server.start()
        worker = start_worker(tmp_path / "worker.log", "-Q", "default", **FAST, CELERY_BROKER_URL=server.url(1))
        try:
            wait_until(lambda: cache_client.hlen("probe:marks") == TASKS, 30, "all tasks to run")
        finally:
            worker.stop()
    assert set(cache_client.hvals("probe:marks")) == {b"1"}


@pytest.mark.parametrize("refuse", [faults.replica, faults.alone, faults.unsaved, faults.forbidden, faults.full])
def test_a_worker_starts_while_redis_refuses(fleet: Fleet, refuse: Any, tmp_path: Path) -> None:
    # On a queue that no other worker consumes.
    with celery_app.connection_for_write(fleet.server.url(1)) as connection:
        for number in range(3):
            fleet.probe_task("mark").apply_async((number,), queue="long", connection=connection)
    end = refuse(fleet.client)
    worker = Running(
        tmp_path / "late.log",
        *("celery", "-A", "app.core.celery:celery_app", "worker", "--loglevel=info", "--without-mingle"),
        *("-I", "tests.e2e.probe_tasks", "-P", "solo", "-n", "late@%h", "-Q", "long"),
        CELERY_BROKER_URL=fleet.server.url(1),
        CELERY_RESULT_BACKEND=fleet.server.url(2),
    )
    try:
        try:
            if refuse is not faults.full:
                wait_until(lambda: "rying" in worker.text() or worker.lines("broker_refuses"), 30, "it to be refused")
                end()
            wait_until(lambda: len(fleet.marks()) == 3, 30, "all tasks to run")
            wait_until(lambda: not fleet.client.hlen("unacked"), 20, "all tasks to be acknowledged")
        finally:
            end()
        assert worker.process.poll() is None, worker.text()
    finally:
        worker.stop()


def test_a_worker_stops_while_redis_refuses(fleet: Fleet, tmp_path: Path) -> None:
    def start(name: str) -> Running:
        environment = {**FAST, "CELERY_VISIBILITY_TIMEOUT": "5", "CELERY_BROKER_URL": fleet.server.url(1)}
        return start_worker(tmp_path / f"{name}.log", "-Q", "long", pool="threads", **environment)

    worker = start("stopping")
    with celery_app.connection_for_write(fleet.server.url(1)) as connection:
        for number in range(4):
            fleet.probe_task("mark").apply_async((number, 0.5), queue="long", connection=connection)
    wait_until(lambda: fleet.client.hlen("unacked") >= 2, 20, "some to run")
    end = faults.replica(fleet.client)
    try:
        worker.process.terminate()
        assert worker.process.wait(20) == 0
        assert fleet.marks()
    finally:
        end()
    worker = start("next")
    try:
        wait_until(lambda: len(fleet.marks()) == 4, 30, "all tasks to run")
        wait_until(lambda: not fleet.client.hlen("unacked"), 20, "all tasks to be acknowledged")
    finally:
        worker.stop()


def test_a_worker_that_may_not_bind_its_queues_tries_less_and_less_often(fleet: Fleet, tmp_path: Path) -> None:
    worker = None
    end = faults.replica(fleet.client)
    try:
        worker = Running(
            tmp_path / "refused.log",
            *("celery", "-A", "app.core.celery:celery_app", "worker", "--loglevel=info", "--without-mingle"),
            *("-P", "solo", "-n", "refused@%h", "-Q", "long"),
            CELERY_BROKER_URL=fleet.server.url(1),
        )
        wait_until(lambda: worker.text().count("re-establish") >= 7, 30, "it to be refused several times")
        assert "Frequent restarts" not in worker.text()
        worker.process.terminate()
        assert worker.process.wait(5) == 0
    finally:
        end()
        if worker:
            worker.stop()
