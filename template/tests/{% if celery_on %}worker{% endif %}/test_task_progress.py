"""`progress` in a task: what is stored of it, how often, and what happens if Redis refuses it."""

import asyncio
import math
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import current_task, states
from celery.app.task import Context
from celery.app.trace import trace_task
from redis.exceptions import OutOfMemoryError

from app.core.celery import celery_app
from app.worker import history, task_progress
from app.worker.broker import results_client
from app.worker.result_backend import ResultBackend
from app.worker.status import read_status
from app.worker.task_progress import progress

Body = Callable[[], Any]


@pytest.fixture
def run() -> Iterator[Callable[..., str]]:
    """Give a function that runs a body as a task and returns the task's id."""
    made: list[Any] = []

    def deliver(body: Body, **options: Any) -> str:
        # Celery takes no function without one.
        body.__name__ = "body"
        task: Any = celery_app.task(name=f"test.progress{len(made)}", **options)(body)
        made.append(task)
        task_id = str(uuid.uuid4())
        request = {
            "id": task_id,
            "task": task.name,
            "hostname": "w1@host",
            "retries": 0,
            "delivery_info": {"routing_key": "default", "redelivered": False},
            "ignore_result": task.ignore_result,
        }
        trace_task(task, task_id, (), {}, request, app=celery_app)
        return task_id

    yield deliver
    for task in made:
        celery_app.tasks.unregister(task)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give the progress that is written to Redis."""
    values: list[Any] = []
    store = ResultBackend._store_result

    def noting(self: Any, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        if state == task_progress.STATE:
            values.append(result["done"])
        return store(self, task_id, result, state, *args, **kwargs)

    monkeypatch.setattr(ResultBackend, "_store_result", noting)
    return values


def _wait_until(condition: Callable[[], object]) -> None:
    pause = threading.Event()
    for _ in range(400):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("waited 20 s")


def _progress(task_id: str) -> Any:
    record = history.read(task_id)
    return record.progress if record else None


def _value(done: float, total: float | None = None, message: str = "") -> dict[str, Any]:
    return {"state": "PROGRESS", "value": {"done": done, "total": total, "message": message}}


def test_progress_is_in_the_record_and_the_status_while_the_task_runs(run: Callable[..., str]) -> None:
    seen: list[Any] = []

    def body() -> None:
        task_id = current_task.request.id
        progress(3, 10, "resizing")
        _wait_until(lambda: _progress(task_id))
        seen.extend((history.read(task_id), read_status(task_id)))

    run(body)
    record, status = seen
    assert (record.state, record.progress) == ("STARTED", _value(3, 10, "resizing"))
    assert (status.status, status.result) == ("PROGRESS", {"done": 3, "total": 10, "message": "resizing"})


def test_the_last_value_is_stored_and_few_of_those_before_it(run: Callable[..., str], written: list[Any]) -> None:
    def body() -> None:
        for number in range(1, 10_001):
            progress(number, 10_000)

    task_id = run(body)
    record = history.read(task_id)
    assert record is not None
    assert (record.state, record.progress) == ("SUCCESS", _value(10_000, 10_000))
    assert written[-1] == 10_000
    assert len(written) < 20


def test_a_value_is_stored_without_another_call(run: Callable[..., str], written: list[Any]) -> None:
    def body() -> None:
        progress(1)
        _wait_until(lambda: written == [1])
        # Too early to be written now.
        progress(2)
        _wait_until(lambda: written == [1, 2])

    run(body)
    assert written == [1, 2]


@pytest.mark.parametrize("fails", [True, False])
def test_a_task_that_fails_or_is_retried_keeps_its_last_progress(run: Callable[..., str], fails: bool) -> None:
    def body() -> None:
        progress(1)
        progress(2)
        if fails:
            raise ValueError("no")
        raise current_task.retry(countdown=3600, exc=ValueError("later"))

    record = history.read(run(body))
    assert record is not None
    assert (record.state, record.progress) == ("FAILURE" if fails else "RETRY", _value(2))


def test_nothing_is_written_after_the_end_of_a_run(written: list[Any]) -> None:
    request = Context(id=str(uuid.uuid4()), task="test.late", retries=0)
    report = task_progress._report_of(request)
    report.newest = {"done": 1}
    celery_app.backend.store_result(request.id, ValueError("x"), states.RETRY, request=request)
    report.newest = {"done": 2}
    report.write()
    assert written == [1]
    status = read_status(request.id)
    assert status is not None
    assert status.status == "RETRY"


def test_async_tasks_and_threads_of_them_report_progress(run: Callable[..., str]) -> None:
    async def body() -> None:
        progress(1)
        await asyncio.to_thread(progress, 2, 2)

    assert _progress(run(body)) == _value(2, 2)


def test_a_task_does_not_wait_for_a_redis_that_does_not_answer(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, answers, waiting = ResultBackend._store_result, threading.Event(), threading.Event()

    def frozen(self: Any, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        if state == task_progress.STATE:
            waiting.set()
            answers.wait(20)
        return store(self, task_id, result, state, *args, **kwargs)

    monkeypatch.setattr(ResultBackend, "_store_result", frozen)

    def body() -> bool:
        progress(1)
        assert waiting.wait(20)
        # It would not get here otherwise.
        progress(2)
        answers.set()
        return True

    task_id = run(body)
    status = read_status(task_id)
    assert status is not None
    assert (status.status, _progress(task_id)) == ("SUCCESS", _value(2))


def test_a_refused_value_does_not_fail_the_task_and_is_written_later(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, refused = ResultBackend._store_result, list[Any]()

    def refuse_first(self: Any, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        if state == task_progress.STATE and len(refused) < 1:
            refused.append(result)
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        return store(self, task_id, result, state, *args, **kwargs)

    monkeypatch.setattr(ResultBackend, "_store_result", refuse_first)
    monkeypatch.setattr(task_progress, "_PAUSE_AFTER_REFUSAL", 0.1)

    def body() -> None:
        task_id = current_task.request.id
        progress(1)
        _wait_until(lambda: _progress(task_id))

    task_id = run(body)
    record = history.read(task_id)
    assert record is not None
    assert (record.state, record.progress, len(refused)) == ("SUCCESS", _value(1), 1)


def test_a_redis_that_refuses_all_progress_does_not_fail_the_task(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultBackend._store_result

    def refuse(self: Any, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        if state == task_progress.STATE:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        return store(self, task_id, result, state, *args, **kwargs)

    monkeypatch.setattr(ResultBackend, "_store_result", refuse)
    record = history.read(run(lambda: progress(1)))
    assert record is not None
    assert (record.state, record.progress) == ("SUCCESS", None)


@pytest.mark.parametrize(
    "message", ["x" * 1000, "é" * 1000, "\U0001f600" * 1000, "\ud800" * 1000, "\n\x00" * 500, '"\\' * 500]
)
def test_any_message_fits_the_record(run: Callable[..., str], message: str) -> None:
    stored = _progress(run(lambda: progress(1e14, 1e14 + 0.5, message)))
    assert stored is not None
    text = stored["value"]["message"]
    assert 0 < len(text) <= task_progress.MAX_MESSAGE
    assert text[:15] == message.encode(errors="backslashreplace").decode()[:15]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e15, 10**400])
def test_a_number_that_json_does_not_have_is_refused(number: float) -> None:
    for numbers in ((number,), (1, number)):
        with pytest.raises(ValueError, match="is not a finite number"):
            progress(*numbers)


def test_outside_of_a_task_and_without_a_result_nothing_is_stored(run: Callable[..., str], written: list[Any]) -> None:
    progress(1)
    task_id = run(lambda: progress(1), ignore_result=True)
    assert written == []
    assert results_client().get(celery_app.backend.get_key_for_task(task_id)) is None


def test_a_header_of_that_name_is_no_progress(run: Callable[..., str]) -> None:
    request = Context(id=str(uuid.uuid4()), task="test.header", progress_report="x")
    task_progress.end(request)
    assert task_progress._report_of(request).newest is None
