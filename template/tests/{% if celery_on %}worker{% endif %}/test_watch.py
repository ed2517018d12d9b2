"""Watching tasks: what a watcher sees, also when Redis loses messages and connections, and what is left after it."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from celery import states
from celery.app.task import Context
from redis.exceptions import BusyLoadingError

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker import history, records, watch
from app.worker.broker import results_client
from app.worker.history import TaskRecord
from app.worker.pipeline import Commands, execute
from app.worker.publish import enqueue
from app.worker.watch import TooManyWatchers

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def no_watchers() -> AsyncIterator[None]:
    """Check that a test leaves no watcher, and no subscription."""
    results_client().flushdb()
    yield
    assert not watch._hubs
    await _until(lambda: not _subscriptions())


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is another server's
            await asyncio.sleep(0.01)


def _subscriptions() -> list[Any]:
    # Celery's own connections have no name.
    return [one for one in results_client().client_list(_type="pubsub") if one["name"] == "app"]


def _store(task_id: str, state: str, value: Any = None) -> None:
    request = Context(id=task_id, task=process_task.name, hostname="w1@host", retries=0)
    celery_app.backend.store_result(task_id, value, state, request=request)


async def _queued() -> str:
    return (await enqueue(process_task.s({}))).id


def _has(seen: list[TaskRecord], number: int) -> bool:
    return len(seen) == number


class Watching:
    """A task that watches another one, and what it has seen."""

    def __init__(self, task_id: str) -> None:
        self.seen: list[TaskRecord] = []
        self.task = asyncio.create_task(self._watch(task_id))

    async def _watch(self, task_id: str) -> None:
        async for record in watch.watch(task_id):
            self.seen.append(record)

    def states(self) -> list[str]:
        return [record.state for record in self.seen]


async def _subscribed(count: int = 1) -> None:
    """Return when that many tasks are subscribed to."""
    await _until(lambda: len(results_client().pubsub_channels("*/record")) == count)


async def test_a_watcher_sees_states_and_progress_until_the_end() -> None:
    task_id = await _queued()
    watching = Watching(task_id)
    await _subscribed()
    for number, (state, value) in enumerate(
        [(states.STARTED, {}), ("PROGRESS", {"done": 1}), ("PROGRESS", {"done": 2}), (states.SUCCESS, 1)], 2
    ):
        await asyncio.to_thread(_store, task_id, state, value)
        await _until(functools.partial(_has, watching.seen, number))
    await asyncio.wait_for(watching.task, 20)
    assert watching.states() == ["PENDING", "STARTED", "STARTED", "STARTED", "SUCCESS"]
    assert [(record.progress or {}).get("value") for record in watching.seen][1:4] == [None, {"done": 1}, {"done": 2}]


@pytest.mark.parametrize("state", [states.SUCCESS, states.FAILURE, states.REVOKED])
async def test_a_task_that_has_ended_is_told_once(state: str) -> None:
    task_id = await _queued()
    _store(task_id, state, ValueError("x") if state != states.SUCCESS else None)
    assert [record.state async for record in watch.watch(task_id)] == [state]


async def test_a_task_without_a_result_is_told_once() -> None:
    result = process_task.apply_async(({},), ignore_result=True)
    assert [record.state async for record in watch.watch(result.id)] == ["UNTRACKED"]


async def test_an_unknown_task_is_not_watched() -> None:
    assert [record async for record in watch.watch("none")] == []


async def test_a_change_between_reading_and_subscribing_is_seen() -> None:
    task_id = await _queued()
    record = history.read(task_id)
    assert record is not None
    await asyncio.to_thread(_store, task_id, states.SUCCESS)
    with watch.watching(record) as watcher:
        assert [one.state async for one in watcher.records()] == ["PENDING", "SUCCESS"]


async def test_a_change_while_the_subscription_begins_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_CHECK_EVERY", 3600)
    reads: list[Commands] = []

    async def change_after_the_first(commands: Commands) -> Commands:
        replies = await execute(commands)
        reads.append(commands)
        if len(reads) == 1:
            # The loop is blocked: nothing is subscribed to yet.
            assert not results_client().pubsub_channels("*/record")
            _store(task_id, states.SUCCESS)
        return replies

    task_id = await _queued()
    monkeypatch.setattr("app.worker.watch.execute", change_after_the_first)
    watching = Watching(task_id)
    await asyncio.wait_for(watching.task, 20)
    assert watching.states() == ["PENDING", "SUCCESS"]


async def test_who_joins_others_sees_what_changed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_CHECK_EVERY", 3600)
    task_id = await _queued()
    record = history.read(task_id)
    assert record is not None
    others = Watching(task_id)
    await _subscribed()
    await asyncio.to_thread(_store, task_id, states.STARTED, {})
    await _until(lambda: others.states() == ["PENDING", "STARTED"])
    with watch.watching(record) as watcher:
        seen = watcher.records()
        async with asyncio.timeout(20):
            assert [(await anext(seen)).state, (await anext(seen)).state] == ["PENDING", "STARTED"]
    others.task.cancel()
    await asyncio.gather(others.task, return_exceptions=True)


async def test_all_watchers_share_one_connection() -> None:
    ids = [await _queued() for _ in range(5)]
    watching = [Watching(task_id) for task_id in ids for _ in range(10)]
    await _subscribed(5)
    assert len(_subscriptions()) == 1
    # Who stops does not end it for the others.
    for one in watching[::2]:
        one.task.cancel()
    for task_id in ids:
        await asyncio.to_thread(_store, task_id, states.SUCCESS)
    await asyncio.wait_for(asyncio.gather(*(one.task for one in watching), return_exceptions=True), 20)
    assert {tuple(one.states()) for one in watching[1::2]} == {("PENDING", "SUCCESS")}


async def test_what_nobody_watches_any_more_is_unsubscribed_from() -> None:
    ids = [await _queued() for _ in range(3)]
    watching = [Watching(task_id) for task_id in ids]
    await _subscribed(3)
    watching[0].task.cancel()
    await _subscribed(2)
    for one in watching[1:]:
        one.task.cancel()
    await asyncio.gather(*(one.task for one in watching), return_exceptions=True)


async def test_a_slow_watcher_gets_the_newest_record() -> None:
    task_id = await _queued()
    record = history.read(task_id)
    assert record is not None
    with watch.watching(record) as watcher:
        seen = watcher.records()
        assert (await anext(seen)).state == "PENDING"
        other = Watching(task_id)
        for number in range(50):
            await asyncio.to_thread(_store, task_id, "PROGRESS", number)
        await _until(lambda: other.seen and other.seen[-1].progress == {"state": "PROGRESS", "value": 49})
        newest = await anext(seen)
        assert newest.progress == {"state": "PROGRESS", "value": 49}
        other.task.cancel()
        await asyncio.gather(other.task, return_exceptions=True)


async def _kill_subscription() -> None:
    results_client().execute_command("CLIENT", "KILL", "TYPE", "pubsub")


async def _refuse_subscriptions() -> None:
    results_client().execute_command("ACL", "SETUSER", "default", "-subscribe")
    await _kill_subscription()


@pytest.mark.parametrize("fault", [_kill_subscription, _refuse_subscriptions])
async def test_no_change_is_lost_with_a_connection(
    fault: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_RETRY_AFTER", 0.05)
    task_id = await _queued()
    watching = Watching(task_id)
    await _subscribed()
    try:
        await fault()
        await asyncio.to_thread(_store, task_id, states.SUCCESS)
        await asyncio.wait_for(watching.task, 20)
    finally:
        results_client().execute_command("ACL", "SETUSER", "default", "+subscribe")
    assert watching.states() == ["PENDING", "SUCCESS"]


async def test_a_frozen_redis_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SILENCE", "_CHECK_EVERY", "_RETRY_AFTER"):
        monkeypatch.setattr(watch, name, 0.1)
    monkeypatch.setattr(celery_settings, "publish_timeout", 0.3)
    task_id = await _queued()
    watching = Watching(task_id)
    await _subscribed()
    client = results_client()
    ended = client.get(records.record_key(task_id)).replace(b"PENDING", b"SUCCESS", 1)
    client.set(records.record_key(task_id), ended)
    client.execute_command("CLIENT", "PAUSE", 1500, "ALL")
    await asyncio.wait_for(watching.task, 20)
    assert watching.states() == ["PENDING", "SUCCESS"]


async def test_a_lost_message_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_CHECK_EVERY", 0.1)
    reads: list[Commands] = []

    async def count(commands: Commands) -> Commands:
        reads.append(commands)
        return await execute(commands)

    task_id, other = await _queued(), await _queued()
    monkeypatch.setattr("app.worker.watch.execute", count)
    watching = Watching(task_id)
    # More than at the start and for the subscription.
    await _until(lambda: len(reads) > 3)
    await asyncio.to_thread(_store, other, states.SUCCESS)
    # As the state of another server that was promoted.
    client = results_client()
    client.set(records.record_key(task_id), client.get(records.record_key(other)))
    await asyncio.wait_for(watching.task, 20)
    assert watching.states() == ["PENDING", "SUCCESS"]


async def test_a_silent_connection_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SILENCE", 0.2)
    monkeypatch.setattr(watch, "_RETRY_AFTER", 0.05)
    watching = Watching(await _queued())
    await _subscribed()
    first = _subscriptions()[0]["id"]
    await _until(lambda: any(one["id"] != first for one in _subscriptions()))
    watching.task.cancel()
    await asyncio.gather(watching.task, return_exceptions=True)


async def test_a_record_that_expires_ends_the_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_CHECK_EVERY", 0.1)
    task_id = await _queued()
    watching = Watching(task_id)
    await _subscribed()
    results_client().delete(records.record_key(task_id))
    await asyncio.wait_for(watching.task, 20)
    assert watching.states() == ["PENDING"]


async def test_records_are_read_again_while_redis_refuses_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_RETRY_AFTER", 0.05)
    refused: list[Commands] = []

    async def refuse_twice(commands: Commands) -> Commands:
        if len(refused) < 2:
            refused.append(commands)
            return Commands(before=[BusyLoadingError("LOADING")])
        return await execute(commands)

    task_id = await _queued()
    monkeypatch.setattr("app.worker.watch.execute", refuse_twice)
    watching = Watching(task_id)
    await _until(lambda: watching.seen)
    await asyncio.to_thread(_store, task_id, states.SUCCESS)
    await asyncio.wait_for(watching.task, 20)
    assert watching.states()[-1] == "SUCCESS"
    assert len(refused) == 2


async def test_a_process_has_a_limited_number_of_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_settings, "max_watchers", 2)
    task_id = await _queued()
    record = history.read(task_id)
    assert record is not None
    with watch.watching(record), watch.watching(record), pytest.raises(TooManyWatchers, match="has 2 watchers"):
        await anext(watch.watch(task_id))
    with watch.watching(record):
        pass


async def test_stopping_ends_all_watching() -> None:
    watching = [Watching(await _queued()) for _ in range(3)]
    await _subscribed(3)
    watch.stop_all()
    await asyncio.wait_for(asyncio.gather(*(one.task for one in watching)), 20)


async def test_a_defect_of_the_hub_ends_the_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    record = history.read(await _queued())
    assert record is not None
    monkeypatch.setattr(history, "parse", fail)
    with watch.watching(record) as watcher:
        async with asyncio.timeout(20):
            assert [one.state async for one in watcher.records()] == ["PENDING"]


async def test_watchers_of_another_loop_count_but_have_their_own_connection() -> None:
    task_id = await _queued()
    watching = Watching(task_id)
    await _subscribed()

    async def first() -> str:
        async with contextlib.aclosing(watch.watch(task_id)) as seen:
            return (await anext(seen)).state

    assert await asyncio.to_thread(asyncio.run, first()) == "PENDING"
    watching.task.cancel()
    await asyncio.gather(watching.task, return_exceptions=True)
