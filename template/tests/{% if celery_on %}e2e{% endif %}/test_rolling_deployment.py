"""Workers of two releases side by side."""

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
    new = start_worker(tmp_path / "new.log", "-I", "tests.e2e.probe_tasks_of_the_next_release", **FAST)
    try:
        ids = [celery_app.send_task("probe.new", (number,), queue="default").id for number in range(10)]
        for task_id in ids:
            wait_until(partial(_succeeded, task_id), 30, f"{task_id} to succeed")
        assert old.lines("unknown_task_requeued")
    finally:
        old.stop()
        new.stop()
    assert cache_client.hlen("probe:marks") == len(ids)
