"""Tasks through the API, on a real worker."""

import asyncio
import secrets
from typing import Any

import pytest
from celery import chain, chord, group

from app.core.celery import celery_app
from app.tasks.example_tasks import database_time
from app.worker.job_limit import jobs_key
from app.worker.publish import enqueue
from app.worker.status import TaskStatus, read_status
from tests.e2e.conftest import Stack
from tests.e2e.processes import start_worker, wait_until


def test_process_returns_the_result(stack: Stack) -> None:
    answer = stack.http.post("/process", json={"a": 1, "b": [True, None]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed"
    assert answer.json()["result"] == {
        "values": 4,
        "by_type": {"NoneType": 1, "bool": 1, "int": 1, "list": 1},
        "depth": 2,
    }


def test_unknown_task_is_404(stack: Stack) -> None:
    answer = stack.http.get("/task/00000000-0000-0000-0000-000000000000")
    assert answer.status_code == 404
    assert "never queued" in answer.json()["detail"]


def test_failure_says_what_it_is(stack: Stack, probe_task: Any) -> None:
    state = stack.state(probe_task("fail").delay().id)
    assert state["status"] == "FAILURE"
    assert state["error"] == {"type": "ValueError", "message": "as it should"}


def test_each_task_is_logged_in_one_line_with_its_times(stack: Stack) -> None:
    task_id = stack.http.post("/process", json={"x": 1}).json()["task_id"]
    mine = [line for line in stack.worker.lines("task_finished") if line["task_id"] == task_id]
    assert len(mine) == 1
    assert mine[0]["state"] == "SUCCESS"
    assert mine[0]["queue_wait"] >= 0
    assert mine[0]["run_time"] >= 0
    assert (mine[0]["queue"], mine[0]["attempt"]) == ("high", 1)
    assert stack.worker.text().count(task_id) == 1, "the end, and nothing of Celery's own"


def test_ready_with_everything_running(stack: Stack) -> None:
    stack.ready("worker", "ok")
    checks = stack.http.get("/ready").json()["checks"]
    # Where there is a schedule, test_schedule.py starts beat.
    assert {name for name, result in checks.items() if result != "ok"} <= {"beat", "schedule"}


def test_database_in_an_async_task(stack: Stack) -> None:
    state = stack.state(database_time.delay().id)
    assert state["status"] == "SUCCESS", state
    assert state["result"][:2] == "20"


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_async_tasks_share_one_loop_and_engine_per_process(
    stack: Stack, probe_task: Any, tmp_path: Any, pool: str
) -> None:
    queue = {"queue": "high"}
    worker = stack.worker
    if pool != "prefork":
        stack.worker.stop()
        worker = start_worker(tmp_path / f"{pool}.log", pool=pool, **stack.environment)
    try:
        results = [probe_task("async_database").apply_async((number,), **queue) for number in range(40)]
        states = [stack.state(result.id) for result in results]
        assert [state["status"] for state in states] == ["SUCCESS"] * 40, states
        assert [state["result"]["value"] for state in states] == list(range(40))
        assert [state["result"]["id"] for state in states] == [result.id for result in results]
        places = {tuple(state["result"]["place"]) for state in states}
        assert len(places) == len({pid for pid, _, _ in places}), places
        assert stack.state(probe_task("async_retry").delay().id)["result"] == 2
    finally:
        if pool != "prefork":
            worker.stop()
            stack.worker = start_worker(stack.worker.log, **stack.environment)


def test_soft_time_limit_stops_an_async_task_and_not_its_process(stack: Stack, probe_task: Any) -> None:
    state = stack.state(probe_task("async_slow").delay().id)
    assert state["error"] is not None
    assert state["error"]["type"] == "SoftTimeLimitExceeded"
    assert stack.state(probe_task("async_database").delay(7).id)["result"]["value"] == 7


def test_own_event_loops_in_plain_tasks_work_hundreds_of_times(stack: Stack, probe_task: Any) -> None:
    task = probe_task("own_loop")
    results = group(task.s(number) for number in range(300)).apply_async()
    assert results.get(timeout=120) == list(range(300))


def test_group_and_chord(stack: Stack, probe_task: Any) -> None:
    mark = probe_task("mark")
    assert group(mark.s(1000), mark.s(1001)).apply_async().get(timeout=30) == [1000, 1001]
    nested = group(group(mark.s(1004), mark.s(1005)), chain(mark.s(1006), mark.si(1007))).apply_async()
    assert nested.get(timeout=30) == [1004, 1005, 1007]
    total = chord([mark.s(1002), mark.s(1003)], database_time.si()).apply_async()
    assert total.get(timeout=30)[:2] == "20"


def test_the_high_queue_overtakes_what_waits_in_another(stack: Stack, probe_task: Any, broker: Any) -> None:
    for number in range(40):
        probe_task("mark").apply_async((number, 0.2))
    answer = stack.http.post("/process", json={})
    waiting = broker.llen("default")
    broker.delete("default")
    assert answer.json()["status"] == "completed"
    assert waiting > 20, "it waited for what was queued before it"


def test_ignored_results_are_told_apart(stack: Stack, probe_task: Any) -> None:
    task_id = probe_task("mark").apply_async((1004,), ignore_result=True).id
    assert stack.http.get(f"/task/{task_id}").json()["status"] == "UNTRACKED"


def _ended(task_id: str) -> TaskStatus:
    def ready() -> TaskStatus | None:
        status = read_status(task_id)
        return status if status and status.ready else None

    status = wait_until(ready, 30, f"task {task_id} to end")
    assert status is not None
    assert status.status == "SUCCESS", status
    return status


def test_what_a_job_queues_has_its_owner_and_its_end_is_counted(stack: Stack, probe_task: Any) -> None:
    owner = f"user-{secrets.token_hex(8)}"
    ended = _ended(asyncio.run(enqueue(probe_task("fan_out").s(), owner)).id)
    later = _ended(asyncio.run(enqueue(probe_task("async_queues").s(), owner)).id)
    made = [ended, later, *(_ended(task_id) for task_id in (*ended.result, later.result))]
    assert [status.owner for status in made] == [owner] * 5
    failed = asyncio.run(enqueue(chain(probe_task("mark").s(1008), probe_task("fail").si()), owner)).id
    wait_until(lambda: (status := read_status(failed)) and status.ready, 30, "the chain to fail")
    backend: Any = celery_app.backend
    assert backend.client.zcard(jobs_key(owner)) == 0
