"""The threads pool: which tasks count towards the prefetch, and what a job reports."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from celery import concurrency
from celery.exceptions import WorkerLostError
from kombu.common import QoS

from app.core.config.celery import celery_settings
from app.worker import event_loop
from app.worker.pool import TaskPool


class _Consumer:
    """A consumer with a prefetch of two, whose thread is the caller's."""

    def __init__(self) -> None:
        self.qos = QoS(lambda **_: None, 2, max_prefetch=100)

    def call_soon(self, function: Any) -> None:
        function()


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
