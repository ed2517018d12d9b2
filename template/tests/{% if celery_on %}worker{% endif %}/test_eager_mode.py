"""Eager mode is refused, however a task is queued, and by every process when it starts."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from celery.signals import beat_init, celeryd_init

from app.core.celery import celery_app
from app.core.database import session_scope
from app.main import create_app
from app.tasks.process_task import process_task
from app.worker.broker import broker_client
from app.worker.eager_mode import EagerModeRefused
from app.worker.publish import enqueue, enqueue_many

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def eager_mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set eager mode, as a project's tests may have done; nothing may run or be queued."""
    ran: list[object] = []
    monkeypatch.setattr(process_task, "run", ran.append)
    monkeypatch.setitem(celery_app.conf, "task_always_eager", True)
    with broker_client() as client:
        client.flushdb()
        yield
        assert client.keys("*") == []
    assert ran == []


@pytest.mark.parametrize(
    "signature",
    [
        process_task.s({}),
        chain(process_task.s({}), process_task.si({})),
        group([process_task.s({}), process_task.s({})]),
        chord([process_task.s({})], process_task.si({})),
    ],
    ids=["task", "chain", "group", "chord"],
)
async def test_every_call_is_refused(signature: Any) -> None:
    for call in (signature.apply_async, signature.delay):
        with pytest.raises(EagerModeRefused, match="drain"):
            call()
    with pytest.raises(EagerModeRefused):
        await enqueue(signature)


async def test_every_option_of_enqueue_is_refused() -> None:
    async with session_scope() as db:
        every: list[dict[str, Any]] = [
            {"after_commit": db},
            {"after_commit": db, "outbox": True},
            {"idempotency_key": "k"},
        ]
        for options in every:
            with pytest.raises(EagerModeRefused):
                await enqueue(process_task.s({}), **options)
    with pytest.raises(EagerModeRefused):
        await enqueue_many([process_task.s({})])


def test_the_api_does_not_start() -> None:
    with pytest.raises(EagerModeRefused):
        create_app()


@pytest.mark.parametrize(
    "start",
    [lambda: celeryd_init.send(None, conf=celery_app.conf), lambda: beat_init.send(None)],
    ids=["worker", "beat"],
)
def test_workers_and_beat_do_not_start(start: Callable[[], object]) -> None:
    with pytest.raises(SystemExit, match="task_always_eager"):
        start()
