"""The threads pool: which tasks count towards the prefetch, what a job reports, and how a coroutine is interrupted."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from celery import concurrency, current_task
from celery.exceptions import SoftTimeLimitExceeded, WorkerLostError
from kombu.common import QoS
from pydantic import ValidationError

from app.core.config.celery import WorkerSettings, celery_settings
from app.tasks.process_task import process_task
from app.worker import event_loop
from app.worker.interruption import Interruptible
from app.worker.pool import TaskPool
from tests import ROOT


class _Consumer:
    """A consumer with a prefetch of two, whose thread is the caller's."""

    def __init__(self) -> None:
        self.initial_prefetch_count = 2
        self.qos = QoS(lambda **_: None, self.initial_prefetch_count, max_prefetch=100)

    def call_soon(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


class _App:
    """An application with a task of each kind."""

    tasks: ClassVar = {"waits": SimpleNamespace(is_async=True), "works": SimpleNamespace(is_async=False)}


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskPool]:
    monkeypatch.setattr(celery_settings, "async_concurrency", 3)
    pool = TaskPool(2, app=_App())
    pool.start()
    yield pool
    pool.stop()


class _Reports:
    """The callbacks of a request, which keep what they are called with."""

    def __init__(self) -> None:
        self.reported: list[tuple[str, Any]] = []
        self.ended = threading.Event()

    def options(self, **limits: float) -> dict[str, Any]:
        return {
            "accept_callback": lambda *_: None,
            "callback": lambda value: self._end("success", value),
            "error_callback": lambda info: self._end("error", info.type),
            "timeout_callback": self._time_out,
            "soft_timeout": limits.get("soft"),
            "timeout": limits.get("hard"),
        }

    def _time_out(self, soft: bool, limit: float) -> None:
        if soft:
            self.reported.append(("soft", limit))
        else:
            self._end("hard", limit)

    def _end(self, what: str, value: Any) -> None:
        self.reported.append((what, value))
        self.ended.set()


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("WORKER_POOL", "gevent", "'prefork', 'threads' or 'solo'"),
        ("WORKER_CONCURRENCY", "0", "greater than or equal to 1"),
        ("WORKER_CONCURRENCY", "1000", "less than or equal to 256"),
        ("WORKER_CONCURRENCY", "auto", "valid integer"),
    ],
)
def test_what_a_worker_runs_tasks_in_is_validated(
    variable: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError, match=rule):
        WorkerSettings()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("pool", "concurrency", "found"),
    [("", "", "prefork 2"), ("threads", "5", "threads 5"), ("solo", "5", "solo 1")],
)
def test_a_worker_reads_its_pool_and_concurrency(pool: str, concurrency: str, found: str) -> None:
    given = {"WORKER_POOL": pool, "WORKER_CONCURRENCY": concurrency}
    code = "from app.core.celery import celery_app as app; print(app.conf.worker_pool, app.conf.worker_concurrency)"
    environment = {**os.environ, **{name: value for name, value in given.items() if value}}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == found.split()


def test_threads_names_this_pool() -> None:
    assert concurrency.get_implementation("threads") is TaskPool


def test_only_async_tasks_up_to_their_limit_extend_the_prefetch(pool: TaskPool) -> None:
    consumer, go = _Consumer(), threading.Event()
    pool.attach(consumer)
    jobs = [pool.apply_async(lambda _: go.wait(10), ["works"], **_Reports().options()) for _ in range(2)]
    assert consumer.qos.value == 2
    jobs += [pool.apply_async(lambda _: go.wait(10), ["waits"], **_Reports().options()) for _ in range(5)]
    assert consumer.qos.value == 2 + 3
    go.set()
    for job in jobs:
        job.wait(10)
    assert consumer.qos.value == 2


def test_the_prefetch_never_falls_below_the_number_of_threads(pool: TaskPool) -> None:
    consumer, go = _Consumer(), threading.Event()
    pool.attach(consumer)
    job = pool.apply_async(lambda _: go.wait(10), ["waits"], **_Reports().options())
    # As Celery does after a lost connection.
    consumer.qos.value = 2
    go.set()
    job.wait(10)
    assert consumer.qos.value == 2


def test_a_refused_extension_is_not_taken_back(pool: TaskPool) -> None:
    consumer = _Consumer()
    # As many countdowns as the worker may have.
    consumer.qos.increment_eventually(98)
    pool.attach(consumer)
    pool.apply_async(lambda _: None, ["waits"], **_Reports().options()).wait(10)
    assert consumer.qos.value == 100


def test_limits_are_reported_in_order_and_the_end_of_the_coroutine_is_not(pool: TaskPool) -> None:
    async def ignores() -> None:
        for _ in range(2):
            with contextlib.suppress(BaseException):
                await asyncio.sleep(60)

    reports = _Reports()

    def trace(_: str) -> Any:
        try:
            return event_loop.run(ignores())
        except Exception as error:  # noqa: BLE001 - as Celery's tracer does
            return error

    pool.apply_async(trace, ["waits"], **reports.options(soft=0.1, hard=0.3))
    assert reports.ended.wait(20)
    assert reports.reported == [("soft", 0.1), ("hard", 0.3)]


def test_a_task_that_exits_is_reported_as_lost(pool: TaskPool) -> None:
    def trace(_: str) -> None:
        raise SystemExit(1)

    reports = _Reports()
    pool.apply_async(trace, ["works"], **reports.options())
    assert reports.ended.wait(10)
    assert reports.reported == [("error", WorkerLostError)]


def test_a_task_that_was_terminated_before_it_started_does_not_run(pool: TaskPool) -> None:
    go, ran = threading.Event(), threading.Event()
    busy = [pool.apply_async(lambda _: go.wait(10), ["works"], **_Reports().options()) for _ in range(2)]
    waiting = pool.apply_async(lambda _: ran.set(), ["works"], **_Reports().options())
    waiting.terminate()
    go.set()
    for job in (*busy, waiting):
        job.wait(10)
    assert not ran.is_set()


async def _interrupted(coroutine: Coroutine[Any, Any, Any], error: BaseException) -> Any:
    """Run the coroutine, interrupt it when it waits, and return what it returns."""
    execution = Interruptible(coroutine)
    running = asyncio.get_running_loop().create_task(execution.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    execution.interrupt(error)
    async with asyncio.timeout(10):
        result = await running
    assert running.cancelling() == 0
    return result


async def test_an_exception_is_raised_where_the_coroutine_waits() -> None:
    async def handles() -> str:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            # It can wait again.
            await asyncio.sleep(0)
            return "handled"
        return "not interrupted"

    assert await _interrupted(handles(), SoftTimeLimitExceeded()) == "handled"
    with pytest.raises(SoftTimeLimitExceeded):
        await _interrupted(asyncio.sleep(60), SoftTimeLimitExceeded())


async def test_a_timeout_around_the_wait_does_not_take_it_for_its_own() -> None:
    async def waits() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))

    with pytest.raises(SoftTimeLimitExceeded):
        await _interrupted(waits(), SoftTimeLimitExceeded())


async def test_a_timeout_inside_works_after_the_interruption() -> None:
    async def waits() -> str:
        with contextlib.suppress(SoftTimeLimitExceeded):
            await asyncio.sleep(60)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "timed out"
        return "not timed out"

    assert await _interrupted(waits(), SoftTimeLimitExceeded()) == "timed out"


async def test_it_is_raised_even_if_a_subtask_swallows_the_cancellation() -> None:
    async def swallows() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    async def waits() -> str:
        await asyncio.create_task(swallows())
        return "not interrupted"

    with pytest.raises(SoftTimeLimitExceeded):
        await _interrupted(waits(), SoftTimeLimitExceeded())


async def test_it_is_raised_before_the_first_step() -> None:
    execution = Interruptible(asyncio.sleep(60))
    execution.interrupt(SoftTimeLimitExceeded())
    async with asyncio.timeout(10):
        with pytest.raises(SoftTimeLimitExceeded):
            await execution.run()


async def test_the_current_task_is_set_for_the_coroutines_own_steps_only() -> None:
    async def sees() -> list[Any]:
        first = current_task.name
        await asyncio.sleep(0.01)
        return [first, current_task.name]

    running = asyncio.get_running_loop().create_task(Interruptible(sees(), process_task).run())
    while not running.done():
        assert not current_task
        await asyncio.sleep(0)
    assert running.result() == [process_task.name] * 2
