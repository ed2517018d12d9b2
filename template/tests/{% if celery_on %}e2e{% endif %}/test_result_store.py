"""A result store that refuses what it is asked to write: nothing accepted is lost, and every task's state is true in the end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from devtools.servers import embedded_servers
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_worker, wait_until
from tests.e2e.redis_faults import alone, forbidden, full, replica

# Short, so that an outage lasts longer than the retries.
RETRY = {"CELERY_RESULT_RETRY": "1"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator["redis.Redis"]:
    """Give a client of a second Valkey, which holds the results alone."""
    folder = tmp_path_factory.mktemp("results")
    with embedded_servers(folder, redis=True, postgres=False, durable=False) as servers:
        client = redis.Redis.from_url(servers.redis_url(2))
        yield client
        client.close()


def _start(store: Any, folder: Path, pool: str) -> Running:
    url = f"redis://127.0.0.1:{store.connection_pool.connection_kwargs['port']}/2"
    return start_worker(folder / f"{pool}.log", pool=pool, **FAST, **RETRY, CELERY_RESULT_BACKEND=url)


@pytest.fixture(scope="module")
def worker(broker: Any, store: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give a prefork worker."""
    running = _start(store, tmp_path_factory.mktemp("worker"), "prefork")
    yield running
    running.stop()


def _meta(store: Any, task_id: str) -> dict[str, Any]:
    stored = store.get(f"celery-task-meta-{task_id}")
    return dict(json.loads(stored)) if stored else {"status": "PENDING"}


def _states(store: Any, ids: list[str]) -> list[str]:
    return [_meta(store, task_id)["status"] for task_id in ids]


def _idle(broker: Any) -> bool:
    return not broker.llen("default") and not broker.hlen("unacked")


def test_a_full_result_store_takes_how_tasks_start_and_end(
    worker: Running, broker: Any, store: Any, probe_task: Any
) -> None:
    before = len(worker.lines("result_not_stored"))
    ids = [probe_task("mark").delay(number, 0.5).id for number in range(4)]
    failed = probe_task("fail").delay().id
    allow = full(store)
    try:
        wait_until(lambda: "STARTED" in _states(store, ids), 20, "a task to start")
        wait_until(lambda: _states(store, [*ids, failed]) == ["SUCCESS"] * 4 + ["FAILURE"], 30, "all to end")
    finally:
        allow()
    wait_until(lambda: _idle(broker), 10, "all to be acknowledged")
    assert len(worker.lines("result_not_stored")) == before


@pytest.mark.parametrize("refuse", [replica, alone, forbidden])
def test_a_result_store_that_refuses_loses_no_task(
    worker: Running, broker: Any, store: Any, probe_task: Any, cache_client: Any, refuse: Any
) -> None:
    cache_client.delete("probe:marks")
    ids = [probe_task("mark").delay(number, 0.2).id for number in range(6)]
    wait_until(lambda: cache_client.hlen("probe:marks") >= 2, 20, "some to run")
    before = len(worker.lines("result_not_stored"))
    allow = refuse(store)
    try:
        # Longer than the retries: the first tasks go back to their queue.
        wait_until(lambda: len(worker.lines("result_not_stored")) >= before + 2, 30, "results to be refused")
        assert not _idle(broker)
    finally:
        allow()
    wait_until(lambda: _states(store, ids) == ["SUCCESS"] * 6, 30, "all to succeed")
    wait_until(lambda: _idle(broker), 10, "all to be acknowledged")
    assert cache_client.hlen("probe:marks") == 6
    assert worker.process.poll() is None


def test_failures_retries_and_chords_outlive_a_refusal(
    worker: Running, broker: Any, store: Any, probe_task: Any
) -> None:
    starts = probe_task("start_chord").delay([1, 2], 0.5).id
    wait_until(lambda: _states(store, [starts]) == ["SUCCESS"], 20, "the chord to be queued")
    joined = str(_meta(store, starts)["result"])
    allow = replica(store)
    before = len(worker.lines("result_not_stored"))
    try:
        failed, retried = probe_task("fail").delay().id, probe_task("async_retry").delay().id
        timed_out = probe_task("overtime").delay().id
        wait_until(lambda: len(worker.lines("result_not_stored")) >= before + 5, 30, "states to be refused")
    finally:
        allow()
    ended = ["FAILURE", "SUCCESS", "FAILURE"]
    wait_until(lambda: _meta(store, joined).get("result") == [1, 2], 30, "the chord to be joined")
    wait_until(lambda: _states(store, [failed, retried, timed_out]) == ended, 30, "the tasks to end as they should")
    assert _meta(store, timed_out)["result"]["exc_type"] == "TimeLimitExceeded"
    wait_until(lambda: _idle(broker), 10, "all to be acknowledged")


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_requeue_too(
    broker: Any, store: Any, probe_task: Any, cache_client: Any, tmp_path: Path, pool: str
) -> None:
    cache_client.delete("probe:marks")
    running = _start(store, tmp_path, pool)
    try:
        allow = replica(store)
        ids = [probe_task("mark").delay(number).id for number in range(3)]
        try:
            wait_until(lambda: len(running.lines("result_not_stored")) >= 2, 30, "results to be refused")
            assert not _idle(broker)
        finally:
            allow()
        wait_until(lambda: _states(store, ids) == ["SUCCESS"] * 3, 30, "all to succeed")
        wait_until(lambda: _idle(broker), 10, "all to be acknowledged")
    finally:
        running.stop()
