"""Metrics of tasks from a real worker, and of queues from the API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from devtools.servers import free_port
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_api, start_worker, wait_until
from tests.metrics.test_metrics import read, total


@pytest.fixture
def port() -> int:
    """Return a free port for metrics."""
    return free_port()


@pytest.fixture(params=["prefork", "threads", "solo"])
def worker(request: pytest.FixtureRequest, broker: Any, tmp_path: Path, port: int) -> Iterator[Running]:
    """Run a worker that serves its metrics on `port`."""
    running = start_worker(tmp_path / "worker.log", pool=request.param, METRICS_WORKER_PORT=str(port), **FAST)
    yield running
    running.stop()


only_prefork = pytest.mark.parametrize("worker", ["prefork"], indirect=True)


def ended(port: int, task: str, outcome: str, times: int = 1) -> None:
    """Wait until `times` runs of a task have this outcome, and check that there are not more."""
    what = f"{times} runs of {task} with the outcome {outcome}"
    wait_until(lambda: total(port, "celery_tasks_total", task=task, outcome=outcome) >= times, 30, what)
    assert total(port, "celery_tasks_total", task=task, outcome=outcome) == times


def test_every_run_is_counted_and_timed_once(worker: Running, port: int, probe_task: Any) -> None:
    assert total(port, "celery_tasks_total", task="probe.fail", outcome="failed") == 0
    assert any(dict(labels).get("task") == "probe.fail" for _, labels in read(port)), "rate() needs a start value of 0"
    for number in range(20):
        probe_task("mark").delay(number, 0.1)
    probe_task("fail").delay()
    probe_task("async_retry").delay()
    ended(port, "probe.mark", "succeeded", 20)
    ended(port, "probe.fail", "failed")
    ended(port, "probe.async_retry", "succeeded")
    ended(port, "probe.async_retry", "retried", 2)
    assert total(port, "celery_task_duration_seconds_count", task="probe.mark") == 20
    assert total(port, "celery_task_duration_seconds_sum", task="probe.mark") >= 2
    assert total(port, "celery_task_duration_seconds_sum", task="probe.mark") < 20
    assert total(port, "celery_task_queue_wait_seconds_count", queue="default") == 24
    # With at most two at a time, the last one has waited for nine others.
    assert total(port, "celery_task_queue_wait_seconds_sum", queue="default") > 2


@only_prefork
def test_a_task_that_kills_its_process_is_counted_and_given_up(worker: Running, port: int, probe_task: Any) -> None:
    probe_task("die").delay()
    ended(port, "probe.die", "given_up")
    deliveries = 1 + int(FAST["CELERY_MAX_REDELIVERIES"])
    assert total(port, "celery_tasks_total", task="probe.die", outcome="lost") == deliveries


@only_prefork
def test_a_task_that_exceeds_its_time_limit_fails_once(worker: Running, port: int, probe_task: Any) -> None:
    probe_task("overtime").delay()
    ended(port, "probe.overtime", "failed")
    for number in range(4):
        probe_task("mark").delay(number)
    ended(port, "probe.mark", "succeeded", 4)
    assert total(port, "celery_tasks_total", task="probe.overtime") == 1


def test_the_api_exports_queues_and_workers(broker: Any, tmp_path: Path, port: int, probe_task: Any) -> None:
    # The worker of the previous test is still counted for a while.
    broker.delete("workers")
    variables = {**FAST, "METRICS_API_PORT": str(port)}
    api, _ = start_api(tmp_path / "api.log", **variables)
    try:
        for number in range(3):
            probe_task("mark").delay(number, 0)
        probe_task("mark").apply_async((4, 0), priority=9)
        assert total(port, "celery_queue_length", queue="default") == 4
        assert total(port, "celery_queue_length", queue="high") == 0
        assert (total(port, "celery_workers"), total(port, "celery_tasks_held")) == (0, 0)
        worker = start_worker(tmp_path / "worker.log", METRICS_WORKER_PORT=str(free_port()), **FAST)
        try:
            wait_until(lambda: total(port, "celery_workers") == 1, 30, "the worker's heartbeat")
            wait_until(lambda: total(port, "celery_queue_length") == 0, 30, "an empty queue")
            probe_task("mark").apply_async((5, 0), countdown=60)
            wait_until(lambda: total(port, "celery_tasks_held") == 1, 30, "the task with a countdown")
        finally:
            worker.stop()
        assert total(port, "celery_broker_up") == 1
    finally:
        api.stop()


def test_the_other_metrics_are_served_without_a_broker(tmp_path: Path, port: int) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/1"
    api, address = start_api(tmp_path / "api.log", METRICS_API_PORT=str(port), CELERY_BROKER_URL=nowhere)
    try:
        httpx.get(f"{address}/health")
        samples = {name for name, _ in read(port)}
        assert total(port, "celery_broker_up") == 0
        assert "celery_queue_length" not in samples
        assert total(port, "http_requests_total", route="/health") == 1
    finally:
        api.stop()
