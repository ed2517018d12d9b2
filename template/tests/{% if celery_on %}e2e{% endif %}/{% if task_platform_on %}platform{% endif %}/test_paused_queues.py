"""Running workers take nothing from paused queues, and say what they run."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import app.core.celery  # noqa: F401 - the queues are those of this application
from app.worker import paused_queues, queue_states, worker_reports
from app.worker.queue_states import QueueState
from app.worker.status import read_status
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_worker, wait_until


@pytest.fixture(scope="module", params=["atomic", "kombu"])
def worker(request: pytest.FixtureRequest, broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give a worker with each of the transports."""
    folder = tmp_path_factory.mktemp(request.param)
    broker.flushdb()
    running = start_worker(folder / f"{request.param}.log", CELERY_TRANSPORT=request.param, **FAST)
    try:
        wait_until(lambda: _queue(broker, "high").workers == 1, 20, "the worker's report")
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def resumed(broker: Any) -> Iterator[None]:
    """Resume all queues after a test."""
    yield
    for queue in paused_queues.read(broker):
        paused_queues.resume(broker, queue)


def _queue(broker: Any, name: str) -> QueueState:
    return next(state for state in queue_states.read(broker)[0] if state.name == name)


def _queues(broker: Any, names: tuple[str, ...]) -> list[QueueState]:
    return [_queue(broker, name) for name in names]


def _pause(broker: Any, *names: str) -> None:
    """Pause queues and wait until all workers have applied it."""
    for name in names:
        paused_queues.pause(broker, name)
    wait_until(
        lambda: all(one.workers == one.workers_paused > 0 for one in _queues(broker, names)), 10, "all to be paused"
    )


def _resume(broker: Any, *names: str) -> None:
    """Resume queues and wait until all workers have applied it."""
    for name in names:
        paused_queues.resume(broker, name)
    wait_until(lambda: not any(one.workers_paused for one in _queues(broker, names)), 10, "all to be resumed")


def _is_success(task_id: str) -> bool:
    status = read_status(task_id)
    return status is not None and status.status == "SUCCESS"


def test_workers_take_nothing_from_a_paused_queue_until_it_is_resumed(
    worker: Running, broker: Any, probe_task: Any
) -> None:
    _pause(broker, "default")
    held = probe_task("mark").apply_async((1,), queue="default")
    other = probe_task("mark").apply_async((2,), queue="high")
    wait_until(lambda: _is_success(other.id), 20, "the task of another queue")
    assert _queue(broker, "default").waiting == 1
    assert not broker.hlen("unacked")
    _resume(broker, "default")
    wait_until(lambda: _is_success(held.id), 20, "the task that waited")
    assert worker.process.poll() is None


def test_a_worker_may_have_all_of_its_queues_paused(worker: Running, broker: Any, probe_task: Any) -> None:
    queues = ("default", "high", "long")
    _pause(broker, *queues)
    held = [probe_task("mark").apply_async((number,), queue=queue) for number, queue in enumerate(queues)]
    # Its heartbeat goes on.
    wait_until(lambda: worker_reports.workers(broker)[0].report is not None, 5, "a report")
    # What kombu has already asked Redis for, it returns to the queue.
    wait_until(lambda: [_queue(broker, queue).waiting for queue in queues] == [1, 1, 1], 5, "all to wait")
    assert not any(_is_success(task.id) for task in held)
    _resume(broker, *queues)
    wait_until(lambda: all(_is_success(task.id) for task in held), 20, "the tasks that waited")


def test_what_runs_when_its_queue_is_paused_runs_to_its_end(worker: Running, broker: Any, probe_task: Any) -> None:
    running = probe_task("mark").apply_async((3, 3), queue="default")
    wait_until(lambda: (found := read_status(running.id)) and found.status == "STARTED", 20, "the task to start")
    paused_queues.pause(broker, "default")
    wait_until(lambda: _is_success(running.id), 20, "the task to end")


def test_a_lost_broadcast_delays_a_pause_by_one_report(
    worker: Running, broker: Any, probe_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paused_queues, "_broadcast", lambda _: None)
    _pause(broker, "long")
    _resume(broker, "long")


def test_a_pause_outlives_a_lost_connection(worker: Running, broker: Any, probe_task: Any) -> None:
    _pause(broker, "default")
    broker.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    held = probe_task("mark").apply_async((4,), queue="default")
    other = probe_task("mark").apply_async((5,), queue="high")
    wait_until(lambda: _is_success(other.id), 30, "the worker to connect again")
    assert _queue(broker, "default").waiting == 1
    _resume(broker, "default")
    wait_until(lambda: _is_success(held.id), 20, "the task that waited")


def test_a_worker_that_starts_later_takes_nothing_from_a_paused_queue(
    worker: Running, broker: Any, probe_task: Any, tmp_path: Path
) -> None:
    _pause(broker, "default")
    held = [probe_task("mark").apply_async((number,), queue="default") for number in range(3)]
    later = start_worker(tmp_path / "later.log", "-Q", "default,high", **FAST)
    try:
        wait_until(lambda: _queue(broker, "default").workers_paused == 2, 20, "the second worker to have applied it")
        other = probe_task("mark").apply_async((6,), queue="high")
        wait_until(lambda: _is_success(other.id), 20, "the task of another queue")
        assert _queue(broker, "default").waiting == 3
        # What it does not consume, it does not resume.
        assert _queue(broker, "long").workers == 1
        _resume(broker, "default")
        wait_until(lambda: all(_is_success(task.id) for task in held), 20, "the tasks that waited")
    finally:
        later.stop()


def test_a_worker_says_what_it_runs(worker: Running, broker: Any, probe_task: Any) -> None:
    running = probe_task("mark").apply_async((7, 4), queue="default")
    waiting = [probe_task("mark").apply_async((8, 0.01), queue="default", countdown=4) for _ in range(2)]

    def told() -> Any:
        # Those that other tests have stopped are listed for some seconds.
        found = next(one for one in worker_reports.workers(broker) if one.name.startswith(("atomic@", "kombu@")))
        tasks = worker_reports.running_tasks([found.name]).get(found.name)
        return tasks if tasks and found.report and found.report.taken else None

    (task,) = wait_until(told, 10, "the worker to say what it runs")
    assert (task.task_id, task.name, task.queue) == (running.id, "probe.mark", "default")

    def reported() -> bool:
        state = _queue(broker, "default")
        return (state.running, state.taken) == (1, 2)

    wait_until(reported, 10, "the report")
    wait_until(lambda: all(_is_success(one.id) for one in (running, *waiting)), 30, "all to end")


def test_two_workers_apply_a_pause_while_tasks_are_queued_and_none_is_lost(
    worker: Running, broker: Any, probe_task: Any, tmp_path: Path
) -> None:
    later = start_worker(tmp_path / "second.log", **FAST)
    queued: list[Any] = []
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            queued.append(probe_task("mark").apply_async((len(queued),), queue="default"))
            stop.wait(0.01)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        for _ in range(3):
            _pause(broker, "default")
            # What was published between them is less.
            wait_until(lambda: _queue(broker, "default").waiting > 20, 10, "tasks to wait")
            _resume(broker, "default")
    finally:
        stop.set()
        publisher.join()
    try:
        wait_until(lambda: all(_is_success(task.id) for task in queued), 60, "all tasks")
        wait_until(lambda: not broker.hlen("unacked"), 10, "all to be acknowledged")
    finally:
        later.stop()
