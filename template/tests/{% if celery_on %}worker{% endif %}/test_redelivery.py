"""A task that is handed out again and again is given up; one that asks for another attempt is not lost."""

import secrets
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest
from celery import states
from celery.app.trace import trace_task
from celery.canvas import Signature
from celery.exceptions import Reject
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker import heartbeat, shutdown
from app.worker.records import excuse_redelivery, read_status
from app.worker.task import RedeliveryLimitExceeded


@dataclass(frozen=True)
class _Held:
    """As much of a worker's request as the heartbeat reads."""

    delivery_tag: str

    @property
    def message(self) -> "_Held":
        return self


@pytest.fixture
def redelivered() -> Any:
    """Make `process_task` believe that its message was handed out before."""
    process_task.push_request(delivery_info={"redelivered": True})
    yield
    process_task.pop_request()


def test_redeliveries_are_counted_up_to_the_limit(redelivered: None) -> None:
    task_id = secrets.token_hex(8)
    for _ in range(celery_settings.max_redeliveries):
        process_task.before_start(task_id, (), {})
    with pytest.raises(RedeliveryLimitExceeded, match="process_task"):
        process_task.before_start(task_id, (), {})


def test_a_worker_that_was_told_to_stop_is_no_reason_to_give_up(redelivered: None) -> None:
    task_id = secrets.token_hex(8)
    for _ in range(celery_settings.max_redeliveries + 2):
        excuse_redelivery([task_id])
        process_task.before_start(task_id, (), {})


def test_a_redis_that_hangs_does_not_keep_a_stopping_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, sent = threading.Event(), []
    monkeypatch.setattr("app.worker.records.excuse_redelivery", lambda _: answered.wait(30))
    monkeypatch.setattr("app.worker.shutdown._told_to_end", threading.Event())
    monkeypatch.setattr("app.worker.shutdown._after", lambda *_: None)
    monkeypatch.setattr("os.kill", lambda _, number: sent.append(number))
    start = time.monotonic()
    shutdown._give_back()
    assert time.monotonic() - start < 10
    assert sent == [signal.SIGQUIT]
    answered.set()


def test_a_redelivery_that_cannot_be_counted_runs(redelivered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> int:
        raise RedisError("Redis is gone")

    monkeypatch.setattr("app.worker.records.count_redelivery", fail)
    process_task.before_start("uncounted", (), {})


def test_the_first_delivery_is_not_counted() -> None:
    for _ in range(celery_settings.max_redeliveries + 2):
        process_task.before_start("first", (), {})


def test_heartbeat_renews_held_tasks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    held = _Held("held")
    acknowledged = _Held("acknowledged")
    monkeypatch.setattr("celery.worker.state.reserved_requests", [held])
    monkeypatch.setattr("celery.worker.state.active_requests", [])
    monkeypatch.setattr("celery.worker.state.scheduled_requests", [acknowledged])
    with celery_app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.client.zadd(channel.unacked_index_key, {"held": 1, "other": 1})
        heartbeat.renew(channel)
        scores = dict(channel.client.zrange(channel.unacked_index_key, 0, -1, withscores=True))
        channel.client.delete(channel.unacked_index_key)
    assert scores.keys() == {b"held", b"other"}, "an acknowledged task must not come back"
    assert scores[b"held"] > 1
    assert scores[b"other"] == 1


@pytest.fixture
def retrying() -> Any:
    """Give a task that asks for another attempt each time."""

    @celery_app.task(name="test.retrying", bind=True)
    def task(self: Any) -> None:
        raise self.retry(countdown=0)

    yield task
    celery_app.tasks.unregister(task)


def test_the_end_of_the_next_attempt_is_not_overwritten(retrying: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = secrets.token_hex(8)
    seen = []

    def end_at_once(*_: object, **__: object) -> None:
        known = read_status(task_id)
        seen.append(known and known.status)
        retrying.backend.store_result(task_id, ValueError("ended"), states.FAILURE)

    monkeypatch.setattr(Signature, "apply_async", end_at_once)
    request = {"id": task_id, "retries": 0, "delivery_info": {"routing_key": "default"}}
    trace_task(retrying, task_id, (), {}, request, app=celery_app)
    status = read_status(task_id)
    assert seen == [states.RETRY]
    assert status is not None
    assert status.status == states.FAILURE


def test_an_attempt_that_cannot_queue_the_next_goes_back_to_its_queue(
    retrying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OperationalError("Redis is gone")

    monkeypatch.setattr(Signature, "apply_async", refuse)
    retrying.push_request(id=secrets.token_hex(8), called_directly=False, retries=0)
    with pytest.raises(Reject) as raised:
        retrying()
    retrying.pop_request()
    assert raised.value.requeue
