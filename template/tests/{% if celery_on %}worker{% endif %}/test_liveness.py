"""When a worker sends its liveness heartbeat, and when it counts as stalled."""

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.solo import TaskPool as SoloPool

from app.core.celery import celery_app
from app.worker import liveness
from app.worker.broker import broker_client
from app.worker.progress import ConsumerProgress


class _World:
    """As much of a worker as the check reads, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.waiting = 0
        self.can_consume = True
        self.active: set[str] = set()
        self.scheduled: set[str] = set()
        self.taken = [0]
        self.consumer = SimpleNamespace(
            pool=object(),
            task_buckets={},
            app=celery_app,
            task_consumer=SimpleNamespace(
                queues=[SimpleNamespace(name="default")],
                channel=SimpleNamespace(qos=SimpleNamespace(can_consume=lambda: self.can_consume)),
            ),
        )
        self.channel = SimpleNamespace(_size=lambda _: self.waiting)
        monkeypatch.setattr("app.worker.progress.time.monotonic", lambda: self.now)
        monkeypatch.setattr("celery.worker.state.active_requests", self.active)
        monkeypatch.setattr("celery.worker.state.scheduled_requests", self.scheduled)
        monkeypatch.setattr("celery.worker.state.all_total_count", self.taken)
        self.progress = ConsumerProgress(self.consumer, liveness._STALLED_AFTER)

    def after_a_minute(self, *, loop: bool = True) -> bool:
        """Return whether the worker is found stalled after a minute of checks."""
        stalled = False
        for _ in range(12):
            self.now += liveness.INTERVAL
            if loop:
                self.progress.loop_turned()
            stalled = self.progress.is_stalled(self.channel)
        return stalled


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> _World:
    """Give an idle worker."""
    return _World(monkeypatch)


def test_an_idle_worker_is_not_stalled(world: _World) -> None:
    assert not world.after_a_minute()


def test_a_worker_that_lets_messages_wait_is_stalled_until_it_consumes_one(world: _World) -> None:
    world.waiting = 1
    assert not world.progress.is_stalled(world.channel)
    assert world.after_a_minute()
    world.taken[0] += 1
    assert not world.progress.is_stalled(world.channel)


def test_a_worker_that_may_consume_nothing_although_it_is_idle_is_stalled(world: _World) -> None:
    world.can_consume = False
    assert world.after_a_minute()


def test_a_busy_worker_is_not_stalled(world: _World) -> None:
    world.waiting, world.can_consume = 1, False
    world.active.add("task")
    assert not world.after_a_minute()


def test_a_worker_whose_event_loop_is_stuck_is_stalled(world: _World) -> None:
    world.active.add("task")
    assert world.after_a_minute(loop=False)


def test_a_solo_worker_needs_no_event_loop_while_a_task_runs(world: _World) -> None:
    world.consumer.pool = SoloPool.__new__(SoloPool)
    world.active.add("task")
    assert not world.after_a_minute(loop=False)
    world.active.clear()
    assert world.after_a_minute(loop=False)


def test_a_worker_at_its_limit_of_countdowns_or_rate_is_not_stalled(
    world: _World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.waiting, world.can_consume = 1, False
    monkeypatch.setitem(celery_app.conf, "worker_eta_task_limit", 2)
    world.scheduled.add("one")
    assert world.after_a_minute()
    world.scheduled.add("two")
    assert not world.after_a_minute()
    world.scheduled.clear()
    world.consumer.task_buckets["limited"] = SimpleNamespace(contents=deque(["task"]))
    assert not world.after_a_minute()


async def test_ready_reads_the_heartbeat_in_redis() -> None:
    check: Any = liveness.check("test")
    with pytest.raises(RuntimeError, match="test"):
        await check()
    liveness.send_heartbeat("test", expires=1)
    await check()


def test_a_full_redis_takes_the_heartbeats_of_its_workers() -> None:
    with broker_client() as client:
        client.config_set("maxmemory", 1)
        try:
            liveness.send_heartbeat("test", expires=5)
            liveness._register_worker(client, "full@host")
            assert client.ttl("alive:test") in {4, 5}
            assert liveness.count_workers(client) == 1
        finally:
            client.config_set("maxmemory", 0)
            client.delete("alive:test", "workers")


def test_a_heartbeat_expires_in_time() -> None:
    # What GET /ready promises is 30 s; it takes up to 2.5 s itself.
    assert liveness.INTERVAL * 2 < liveness.EXPIRES <= 25
