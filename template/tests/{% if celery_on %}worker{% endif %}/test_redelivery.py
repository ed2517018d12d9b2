"""A task that is redelivered too often fails; one whose retry cannot be queued is requeued."""

import secrets
import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import states
from celery.app.trace import trace_task
from celery.canvas import Signature
from celery.exceptions import Reject
from celery.worker.request import Request
from kombu import Message
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker import shutdown
from app.worker.redelivery import RedeliveryLimitExceeded, RequeuingRequest, excuse_redeliveries
from app.worker.status import read_status


@pytest.fixture
def redelivered() -> Any:
    """Make `process_task` see its message as redelivered."""
    process_task.push_request(delivery_info={"redelivered": True})
    yield
    process_task.pop_request()


def test_redeliveries_are_counted_up_to_the_limit(redelivered: None) -> None:
    task_id = secrets.token_hex(8)
    for _ in range(celery_settings.max_redeliveries):
        process_task.before_start(task_id, (), {})
    with pytest.raises(RedeliveryLimitExceeded, match="process_task"):
        process_task.before_start(task_id, (), {})


def test_a_requeued_task_does_not_count_as_redelivered(redelivered: None) -> None:
    task_id = secrets.token_hex(8)
    for _ in range(celery_settings.max_redeliveries + 2):
        excuse_redeliveries([task_id])
        process_task.before_start(task_id, (), {})


def test_a_frozen_redis_does_not_delay_a_graceful_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, sent = threading.Event(), []
    monkeypatch.setattr("app.worker.redelivery.excuse_redeliveries", lambda _: answered.wait(30))
    monkeypatch.setattr("app.worker.shutdown._requeued", threading.Event())
    monkeypatch.setattr("app.worker.shutdown._call_after", lambda *_: None)
    monkeypatch.setattr("os.kill", lambda _, number: sent.append(number))
    start = time.monotonic()
    shutdown._requeue_running()
    assert time.monotonic() - start < 10
    assert sent == [signal.SIGQUIT]
    answered.set()


def test_a_redelivery_that_cannot_be_counted_runs(redelivered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> int:
        raise RedisError("Redis is gone")

    monkeypatch.setattr("app.worker.redelivery.count_redelivery", fail)
    process_task.before_start("uncounted", (), {})


def test_the_first_delivery_is_not_counted() -> None:
    for _ in range(celery_settings.max_redeliveries + 2):
        process_task.before_start("first", (), {})


@pytest.fixture
def retrying() -> Any:
    """Give a task that asks for another attempt each time."""

    @celery_app.task(name="test.retrying", bind=True)
    def task(self: Any) -> None:
        raise self.retry(countdown=0)

    yield task
    celery_app.tasks.unregister(task)


def test_retry_does_not_overwrite_the_final_state_of_the_next_attempt(
    retrying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_an_attempt_that_cannot_queue_the_next_is_requeued(retrying: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OperationalError("Redis is gone")

    monkeypatch.setattr(Signature, "apply_async", refuse)
    retrying.push_request(id=secrets.token_hex(8), called_directly=False, retries=0)
    with pytest.raises(Reject) as raised:
        retrying()
    retrying.pop_request()
    assert raised.value.requeue


END = (
    ("on_failure", (SimpleNamespace(exception=ValueError("ended")),)),
    ("on_timeout", (False, 1.0)),
    ("_announce_revoked", ("terminated", True, "SIGTERM", False)),
)


def _end(monkeypatch: pytest.MonkeyPatch, method: str, args: tuple[Any, ...], store: Callable[[], object]) -> list[str]:
    """End a task in the worker's main process, where Celery acknowledges and then stores; return what happened."""
    done = []

    class Recorded(RequeuingRequest):
        def before_acknowledging(self, error: BaseException) -> None:
            done.append("before acknowledging")

    def end(request: Any, *_: object) -> None:
        request.acknowledge()
        store()
        done.append("stored")

    monkeypatch.setattr(Request, method, end)
    request: Any = Recorded(
        Message(
            headers={"id": "ending", "task": process_task.name},
            delivery_info={},
            body="[[], {}, {}]",
            content_type="application/json",
            content_encoding="utf-8",
        ),
        app=celery_app,
        task=process_task,
        on_ack=lambda *_: done.append("acknowledged"),
        on_reject=lambda *reject: done.append(f"requeue: {reject[-1]}"),
    )
    getattr(request, method)(*args)
    return done


@pytest.mark.parametrize(("method", "args"), END)
def test_a_message_is_acknowledged_once_when_its_end_is_stored(
    monkeypatch: pytest.MonkeyPatch, method: str, args: tuple[Any, ...]
) -> None:
    before = ["before acknowledging"] if method != "_announce_revoked" else []
    assert _end(monkeypatch, method, args, lambda: None) == ["stored", *before, "acknowledged"]


@pytest.mark.parametrize("requeue", [True, False])
@pytest.mark.parametrize(("method", "args"), END)
def test_a_message_whose_end_cannot_be_stored_is_not_acknowledged(
    monkeypatch: pytest.MonkeyPatch, method: str, args: tuple[Any, ...], requeue: bool
) -> None:
    def refuse() -> None:
        raise Reject("Redis is gone", requeue=requeue)

    assert _end(monkeypatch, method, args, refuse) == [f"requeue: {requeue}"]
