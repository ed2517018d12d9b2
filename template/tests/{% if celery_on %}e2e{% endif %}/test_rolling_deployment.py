"""Workers of two releases side by side."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

from app.core.celery import celery_app
from app.worker.status import read_status
from tests.e2e.conftest import FAST
from tests.e2e.processes import start_worker, wait_until


def _succeeded(task_id: str) -> bool:
    status = read_status(task_id)
    assert status is not None
    assert status.status in {"PENDING", "STARTED", "SUCCESS"}
    return status.status == "SUCCESS"


def test_a_worker_that_knows_the_task_gets_it_while_others_do_not(
    broker: Any, cache_client: Any, tmp_path: Path
) -> None:
    cache_client.delete("probe:marks")
    old = start_worker(tmp_path / "old.log", pool="threads", **FAST)
    workers = [old]
    try:
        ids = [celery_app.send_task("probe.new", (number,), queue="default").id for number in range(10)]
        wait_until(lambda: bool(old.lines("unknown_task_requeued")), 30, "the old worker to give a task back")
        workers.append(start_worker(tmp_path / "new.log", "-I", "tests.e2e.probe_tasks_of_the_next_release", **FAST))
        for task_id in ids:
            wait_until(partial(_succeeded, task_id), 30, f"{task_id} to succeed")
    finally:
        for worker in workers:
            worker.stop()
    assert cache_client.hlen("probe:marks") == len(ids)


def test_workers_of_both_transports_share_queues_and_lose_no_task(
    broker: Any, probe_task: Any, cache_client: Any, tmp_path: Path
) -> None:
    cache_client.delete("probe:marks")
    old = start_worker(tmp_path / "kombu.log", **FAST, CELERY_TRANSPORT="kombu")
    new = start_worker(tmp_path / "atomic.log", **FAST)
    try:
        for number in range(600):
            probe_task("mark").delay(number)
        wait_until(lambda: cache_client.hlen("probe:marks") > 200, 60, "a third of the tasks")
        assert old.lines("task_finished")
        assert new.lines("task_finished")
        # kombu's loses a message if it is killed when it has just taken it.
        new.signal(signal.SIGKILL)
        wait_until(lambda: cache_client.hlen("probe:marks") == 600, 60, "all tasks")
        wait_until(lambda: not broker.hlen("unacked"), 20, "all to be acknowledged")
    finally:
        old.stop()
        new.stop()


def test_a_worker_redelivers_what_one_with_the_other_transport_held(
    broker: Any, probe_task: Any, cache_client: Any, tmp_path: Path
) -> None:
    cache_client.delete("probe:marks")
    old = start_worker(tmp_path / "kombu.log", **FAST, CELERY_TRANSPORT="kombu")
    for number in range(6):
        probe_task("mark").delay(number, 1)
    wait_until(lambda: broker.hlen("unacked") == 6 and not broker.llen("default"), 20, "the worker to hold all")
    old.signal(signal.SIGKILL)
    old.process.wait(10)
    new = start_worker(tmp_path / "atomic.log", **FAST)
    try:
        wait_until(lambda: cache_client.hlen("probe:marks") == 6, 60, "all tasks")
    finally:
        new.stop()
