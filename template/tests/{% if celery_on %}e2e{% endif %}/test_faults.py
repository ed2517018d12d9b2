"""Killed processes and a lost Redis."""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.e2e.conftest import FAST, Stack
from tests.e2e.processes import start_worker, wait_until

TASKS = 500


def _marks(cache_client: Any) -> dict[bytes, bytes]:
    return dict(cache_client.hgetall("probe:marks"))


def _done(cache_client: Any, number: int) -> bool:
    return len(_marks(cache_client)) >= number


def _queue_up(probe_task: Any, cache_client: Any, tasks: int = TASKS) -> None:
    cache_client.delete("probe:marks")
    mark = probe_task("mark")
    for number in range(tasks):
        mark.apply_async((number,))


def test_killed_children_lose_no_task(stack: Stack, probe_task: Any, cache_client: Any) -> None:
    _queue_up(probe_task, cache_client)
    for share in (0.1, 0.3, 0.5):
        enough = partial(_done, cache_client, int(TASKS * share))
        wait_until(enough, 60, f"{share:.0%} of the tasks")
        os.kill(stack.worker.children()[0], signal.SIGKILL)
    wait_until(lambda: len(_marks(cache_client)) == TASKS, 90, "all tasks")


def test_killed_workers_lose_no_task(
    stack: Stack, broker: Any, probe_task: Any, cache_client: Any, tmp_path: Path
) -> None:
    # The tasks do not kill their workers.
    environment = {**stack.environment, "CELERY_MAX_REDELIVERIES": "1000"}
    _queue_up(probe_task, cache_client, 3 * TASKS)
    for number in range(5):
        enough = partial(_done, cache_client, (number + 1) * TASKS // 2)
        wait_until(enough, 60, f"{number + 1} sixths of the tasks")
        stack.worker.signal(signal.SIGKILL)
        stack.worker.process.wait(10)
        killed = time.monotonic()
        stack.worker = start_worker(tmp_path / f"after-{number}.log", **environment)
    wait_until(lambda: len(_marks(cache_client)) == 3 * TASKS, 90, "all tasks")
    wait_until(lambda: not broker.hlen("unacked"), 30, "nothing to be held any more")
    # The visibility timeout, and the time between two looks at it.
    assert time.monotonic() - killed < 60


def test_ready_tells_of_a_dead_worker(stack: Stack, tmp_path: Path) -> None:
    stack.worker.signal(signal.SIGKILL)
    stack.worker.process.wait(10)
    stack.ready("worker", "unavailable")
    assert stack.http.get("/ready").status_code == 503
    stack.worker = start_worker(tmp_path / "again.log", **stack.environment)
    stack.ready("worker", "ok")


def test_long_tasks_and_countdowns_run_once(stack: Stack, probe_task: Any, cache_client: Any, tmp_path: Path) -> None:
    cache_client.delete("probe:marks")
    longer = 1.5 * float(FAST["CELERY_VISIBILITY_TIMEOUT"])
    second = start_worker(tmp_path / "second.log", **stack.environment)
    try:
        results = [
            probe_task("mark").delay(1, longer),
            probe_task("mark").apply_async((2,), countdown=longer),
        ]
        for result in results:
            assert stack.state(result.id, timeout=60)["status"] == "SUCCESS"
    finally:
        second.stop()
    assert _marks(cache_client) == {b"1": b"1", b"2": b"1"}


def test_long_tasks_run_once_when_clocks_differ(
    stack: Stack, probe_task: Any, cache_client: Any, tmp_path: Path
) -> None:
    cache_client.delete("probe:marks")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\nread = time.time\ntime.time = lambda: read() + float(os.environ['CLOCK_IS_AHEAD'])\n"
    )
    others = [
        start_worker(
            tmp_path / f"clock{ahead}.log",
            pool="threads",
            **stack.environment,
            PYTHONPATH=str(tmp_path),
            CLOCK_IS_AHEAD=str(ahead),
        )
        for ahead in (-600, -60, 60, 600)
    ]
    # Of this queue each worker takes as many as it runs: two.
    numbers = range(2 * (1 + len(others)))
    longer = 1.5 * float(FAST["CELERY_VISIBILITY_TIMEOUT"])
    try:
        results = [probe_task("mark").apply_async((number, longer), queue="long") for number in numbers]
        for result in results:
            assert stack.state(result.id, timeout=60)["status"] == "SUCCESS"
        assert all(other.lines("task_finished") for other in others)
    finally:
        for other in others:
            other.stop()
    assert _marks(cache_client) == {str(number).encode(): b"1" for number in numbers}


def test_a_worker_told_to_stop_finishes_what_it_runs_once(
    stack: Stack, probe_task: Any, cache_client: Any, tmp_path: Path
) -> None:
    cache_client.delete("probe:marks")
    result = probe_task("mark").delay(3, 1.5 * float(FAST["CELERY_VISIBILITY_TIMEOUT"]))
    wait_until(lambda: stack.http.get(f"/task/{result.id}").json()["status"] == "STARTED", 30, "the task to start")
    stopping = stack.worker
    stopping.process.terminate()
    stack.worker = start_worker(tmp_path / "next.log", **stack.environment, LOG_LEVEL="DEBUG")
    stopping.process.wait(60)
    assert stack.state(result.id)["status"] == "SUCCESS"
    assert not stack.worker.lines("task_started")
    assert _marks(cache_client) == {b"3": b"1"}


def test_a_task_that_kills_its_process_is_given_up(stack: Stack, probe_task: Any, cache_client: Any) -> None:
    cache_client.delete("probe:deaths")
    state = stack.state(probe_task("die").delay().id, timeout=90)
    assert state["error"]["type"] == "RedeliveryLimitExceeded", state
    assert int(cache_client.get("probe:deaths")) == 1 + int(FAST["CELERY_MAX_REDELIVERIES"])


def test_frozen_redis_is_a_503_within_three_seconds(stack: Stack, broker: Any) -> None:
    pid = broker.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        for method, path, body in (("GET", "/task/x", None), ("POST", "/process", {"a": 1})):
            start = time.monotonic()
            answer = stack.http.request(method, path, json=body)
            assert answer.status_code == 503, answer.text
            assert "task queue" in answer.json()["detail"]
            assert time.monotonic() - start < 3
        start = time.monotonic()
        assert stack.http.get("/health").status_code == 200
        assert time.monotonic() - start < 1.5
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: stack.http.post("/process", json={"a": 1}).status_code == 200, 60, "tasks to run again")
