"""Publishing from `async def` code while Redis answers, is frozen, or is gone."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import chain, chord, group
from celery.result import GroupResult

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task, summarise
from app.worker.broker import results_client
from app.worker.publish import QueueUnavailable, check_queue, enqueue, in_thread, status_of, wait_for
from app.worker.status import UNTRACKED
from devtools.servers import free_port
from tests import ROOT
from tests.worker.fixtures import Drain

pytestmark = pytest.mark.anyio


async def _lag_during(action: Callable[[], Any]) -> float:
    """Return the longest time in seconds that the loop did not come round while `action` ran."""
    worst = 0.0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal worst
        while not done.is_set():
            start = time.perf_counter()
            await asyncio.sleep(0.005)
            worst = max(worst, time.perf_counter() - start - 0.005)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        await action()
    finally:
        done.set()
        await watcher
    return worst


async def test_a_queued_task_is_known_and_an_unknown_one_is_not() -> None:
    result = await enqueue(process_task.s({"a": 1}))
    status = await status_of(result.id)
    assert status is not None
    assert status.status == "PENDING"
    assert await status_of("never-queued") is None


async def test_calls_that_were_given_up_keep_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Redis frozen each request would otherwise leave a thread behind."""
    monkeypatch.setattr(celery_settings, "publish_timeout", 0.05)
    before = threading.active_count()
    frozen = threading.Event()
    try:
        for _ in range(3):
            calls = (in_thread(frozen.wait, 10) for _ in range(16))
            failed = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in failed} == {QueueUnavailable}
        assert threading.active_count() - before <= 16
    finally:
        frozen.set()
    monkeypatch.undo()
    assert await in_thread(abs, -1) == 1


async def test_ignored_results_are_untracked() -> None:
    result = await enqueue(process_task.signature(({},), ignore_result=True))
    status = await status_of(result.id)
    assert status is not None
    assert status.status == UNTRACKED


async def test_every_step_of_a_workflow_is_known_at_once() -> None:
    step = process_task.si({})
    for workflow in (chain(step, step, step), chord([step, step], step), chain(step, group(step, step))):
        result: Any = await enqueue(workflow)
        while result is not None:
            for member in result.results if isinstance(result, GroupResult) else [result]:
                status = await status_of(member.id)
                assert status is not None, (workflow, member)
                assert status.status == "PENDING"
            result = result.parent


async def test_a_chord_waits_longer_than_results_are_stored_and_not_for_ever(drain: Drain) -> None:
    """Its members may wait in a queue for hours. Without the number of them, it never runs its callback."""
    results = results_client()
    assert celery_settings.result_expires < celery_settings.records_expire
    result = await enqueue(chord([process_task.s({}), process_task.s({})], process_task.si({})))
    (size,) = results.scan_iter("celery-taskset-meta-*.s")
    assert results.ttl(size) == pytest.approx(celery_settings.records_expire, abs=30)
    assert drain() == [process_task.name] * 3
    status = await status_of(result.id)
    assert status is not None
    assert status.status == "SUCCESS"
    assert [key for key in results.scan_iter("*taskset*") if results.ttl(key) < 0] == []


async def test_a_step_that_ignores_its_result_is_untracked_when_it_is_queued() -> None:
    result = await enqueue(chain(process_task.si({}), process_task.si({})))
    process_task.apply_async(({},), task_id=result.id, ignore_result=True)
    status = await status_of(result.id)
    assert status is not None
    assert status.status == UNTRACKED


async def test_publishing_subscribes_to_nothing() -> None:
    consumer: Any = celery_app.backend.result_consumer
    before = set(consumer.subscribed_to)
    result: Any = await enqueue(group(process_task.si({}) for _ in range(3)))
    assert set(consumer.subscribed_to) == before
    assert len(result.results) == 3


async def test_records_and_results_expire() -> None:
    result = await enqueue(process_task.s({}))
    backend: Any = celery_app.backend
    left = backend.client.ttl(backend.get_key_for_task(result.id))
    assert 0 < left <= celery_settings.result_expires


async def test_wait_for_gives_up_in_time() -> None:
    result = await enqueue(process_task.s({}))
    start = time.monotonic()
    status = await wait_for(result.id, 0.3)
    assert status is not None
    assert status.status == "PENDING"
    assert time.monotonic() - start < 2


async def test_frozen_redis_fails_in_time_and_never_stops_the_loop() -> None:
    await enqueue(process_task.s({}))
    with redis.Redis.from_url(celery_settings.broker_url.get_secret_value()) as client:
        pid = int(client.info("server")["process_id"])

    async def try_many() -> None:
        start = time.monotonic()
        attempts = [enqueue(process_task.s({})) if number % 2 else check_queue() for number in range(40)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        # One after the other it would be 80 s.
        assert time.monotonic() - start < 6
        assert all(isinstance(outcome, QueueUnavailable) for outcome in outcomes), outcomes

    os.kill(pid, signal.SIGSTOP)
    try:
        lag = await _lag_during(try_many)
    finally:
        os.kill(pid, signal.SIGCONT)
    # Blocked, it would be the socket's timeout of 2 s; on a busy machine 0.7 s were seen.
    assert lag < 1.5


def test_delay_fails_within_three_seconds_when_redis_is_gone() -> None:
    nowhere = {f"CELERY_{name}": f"redis://127.0.0.1:{free_port()}/1" for name in ("BROKER_URL", "RESULT_BACKEND")}
    code = """
import time
from app.tasks.process_task import process_task
for _ in range(2):
    start = time.monotonic()
    try:
        process_task.delay({})
    except Exception as error:
        assert "refused" in str(error), error
    else:
        raise AssertionError("it was queued")
    assert time.monotonic() - start < 3, time.monotonic() - start
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **nowhere}, cwd=ROOT, check=True, timeout=60)


def test_summary_counts_without_recursion() -> None:
    deep: dict[str, Any] = {}
    level = deep
    for _ in range(5000):
        level["x"] = {}
        level = level["x"]
    assert summarise(deep) == {"values": 5000, "by_type": {"dict": 5000}, "depth": 5000}
