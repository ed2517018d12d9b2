"""Many `async def` tasks at a time in one worker with the threads pool: limits, cancellation, shutdown and context of each."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.celery import celery_app
from app.worker.publish import cancel
from app.worker.status import TaskStatus, read_status
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_worker, wait_until

Start = Callable[..., Running]


@pytest.fixture
def start(broker: Any, cache_client: Any, tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a worker, with an empty broker and cache."""
    broker.flushdb()
    cache_client.flushdb()
    with contextlib.ExitStack() as running:

        def one(pool: str = "threads", **environment: str) -> Running:
            log = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
            worker = start_worker(log, pool=pool, **{**FAST, "LOG_LEVEL": "DEBUG", **environment})
            running.callback(worker.stop)
            return worker

        yield one
    broker.flushdb()


def _ended(task_id: str) -> TaskStatus:
    def status() -> TaskStatus | None:
        found = read_status(task_id)
        return found if found and found.status in {"SUCCESS", "FAILURE", "REVOKED"} else None

    found = wait_until(status, 40, f"task {task_id} to end")
    assert found is not None
    return found


def _is_started(task_id: str) -> bool:
    status = read_status(task_id)
    return status is not None and status.status == "STARTED"


def _all_acknowledged(broker: Any) -> None:
    wait_until(lambda: not broker.llen("default") and not broker.hlen("unacked"), 20, "all to be acknowledged")


def _peak(cache_client: Any, name: str) -> int:
    return int(cache_client.zscore("probe:peaks", name) or 0)


def _runs(cache_client: Any, key: str) -> dict[int, int]:
    return {int(number): int(runs) for number, runs in cache_client.hgetall(f"probe:{key}").items()}


def test_async_tasks_overlap_although_the_worker_has_two_threads_for_others(
    start: Start, broker: Any, cache_client: Any, probe_task: Any
) -> None:
    # `--pool=prefork` is the command's default, so the setting applies.
    start("prefork", WORKER_POOL="threads")
    # Each ends only when all 40 run.
    results = [probe_task("async_meet").delay(number, 40) for number in range(40)]
    assert [_ended(result.id).status for result in results] == ["SUCCESS"] * 40
    assert _peak(cache_client, "async_meet") == 40
    _all_acknowledged(broker)


def test_async_and_plain_tasks_have_a_limit_each(start: Start, broker: Any, cache_client: Any, probe_task: Any) -> None:
    start(CELERY_ASYNC_CONCURRENCY="5")
    results = [probe_task("async_meet").delay(number, 5, stay=0.3) for number in range(12)]
    results += [probe_task("def_meet").delay(0.2) for _ in range(8)]
    assert [_ended(result.id).status for result in results] == ["SUCCESS"] * 20
    assert _peak(cache_client, "async_meet") == 5
    assert _peak(cache_client, "def_meet") == 2
    _all_acknowledged(broker)


def test_running_async_tasks_do_not_make_a_worker_hold_plain_tasks(
    start: Start, broker: Any, cache_client: Any, probe_task: Any
) -> None:
    worker = start()
    waiting = [probe_task("async_meet").delay(number, 1000) for number in range(10)]
    wait_until(lambda: len(worker.lines("task_started")) == 10, 20, "the async tasks to start")
    for number in range(10):
        probe_task("mark").delay(number, 60)
    # Started later than those, and not kept from starting by them. The worker holds four plain tasks for each thread.
    wait_until(lambda: len(worker.lines("task_started")) == 12, 20, "two plain tasks to start")
    celery_app.control.ping(timeout=0.5)
    assert broker.hlen("unacked") == 10 + 8
    assert broker.llen("default") == 2
    assert all(_is_started(result.id) for result in waiting)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_soft_limit_can_be_handled_in_the_coroutine(start: Start, pool: str, probe_task: Any) -> None:
    start(pool)
    handled, not_handled = probe_task("async_cleans_up").delay().id, probe_task("async_slow").delay().id
    assert _ended(handled).result == "cleaned up"
    error = _ended(not_handled).error
    assert error is not None
    assert error["type"] == "SoftTimeLimitExceeded"


def test_a_hard_limit_ends_one_coroutine_and_not_the_others(start: Start, broker: Any, probe_task: Any) -> None:
    start()
    other = probe_task("async_mark").delay(1, 5).id
    late = probe_task("async_overtime").delay().id
    error = _ended(late).error
    assert error is not None
    assert error["type"] == "TimeLimitExceeded"
    assert _is_started(other)
    assert _ended(other).status == "SUCCESS"
    _all_acknowledged(broker)


def test_a_cancelled_coroutine_ends_and_the_others_do_not(
    start: Start, broker: Any, cache_client: Any, probe_task: Any
) -> None:
    start()
    running = [probe_task("async_mark").delay(number, seconds).id for number, seconds in ((1, 60), (2, 60), (3, 6))]
    wait_until(lambda: len(_runs(cache_client, "starts")) == 3, 20, "the coroutines to start")
    asyncio.run(cancel(running[0]))
    # As Flower does.
    celery_app.control.revoke(running[1], terminate=True)
    assert [_ended(task_id).status for task_id in running] == ["REVOKED", "REVOKED", "SUCCESS"]
    wait_until(lambda: _runs(cache_client, "cancelled") == {1: 1, 2: 1}, 20, "the coroutines to be cancelled")
    assert _runs(cache_client, "marks") == {3: 1}
    _all_acknowledged(broker)


def test_running_coroutines_are_cancelled_and_requeued_by_a_shutdown(
    start: Start, broker: Any, cache_client: Any, probe_task: Any
) -> None:
    slow = {"CELERY_SOFT_SHUTDOWN_TIMEOUT": "2", "CELERY_VISIBILITY_TIMEOUT": "3600"}
    first = start(**slow)
    ids = [probe_task("async_mark").delay(number, 60).id for number in range(6)]
    ended = probe_task("async_mark").delay(8, 0.5).id
    # Last: while they have both threads, the worker takes no more messages.
    ids += [probe_task("interrupted").delay(number, 60).id for number in (6, 7)]
    wait_until(lambda: len(first.lines("task_started")) == 9, 20, "the tasks to start")
    first.process.terminate()
    first.process.wait(20)
    assert read_status(ended).status == "SUCCESS"  # type: ignore[union-attr]
    assert broker.llen("default") == 8
    assert not broker.hlen("unacked")
    assert _runs(cache_client, "cancelled") == dict.fromkeys(range(6), 1)
    assert [celery_app.backend.client.get(f"redelivered:{task_id}") for task_id in ids] == [b"-1"] * 8
    start(**slow)
    assert [_ended(task_id).status for task_id in ids] == ["SUCCESS"] * 8
    assert _runs(cache_client, "marks") == dict.fromkeys(range(9), 1)
    assert _runs(cache_client, "starts") == {**dict.fromkeys(range(8), 2), 8: 1}


def test_each_coroutine_sees_its_own_task_while_they_take_turns(start: Start, probe_task: Any) -> None:
    start()
    results = [probe_task("async_context").delay(number) for number in (1, 2)]
    for number, result in enumerate(results, 1):
        before, after, in_a_subtask, child = _ended(result.id).result
        assert before == after == [result.id, result.id, result.id, number]
        assert in_a_subtask == [result.id]
        assert _ended(child).result == result.id


def test_a_coroutine_that_exits_leaves_the_loop_to_the_others(start: Start, broker: Any, probe_task: Any) -> None:
    start()
    other = probe_task("async_mark").delay(1, 3).id
    exits = probe_task("async_exit").delay().id
    error = _ended(exits).error
    assert error is not None
    assert error["type"] == "RedeliveryLimitExceeded"
    assert _ended(other).status == "SUCCESS"
    _all_acknowledged(broker)
