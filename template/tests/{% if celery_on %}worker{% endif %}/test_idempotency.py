"""`enqueue(…, idempotency_key=…)`: the calls with one key queue one task, and all return its id."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
import redis
from celery import group
from fastapi import FastAPI
from sqlalchemy import update

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.core.database import session_scope
from app.models.tasks import OnceKey
from app.tasks.process_task import process_task
from app.worker import idempotency, job_limit
from app.worker.idempotency import IdempotencyKeyReused, Once
from app.worker.publish import QueueUnavailable, enqueue, status_of
from app.worker.serializer import InvalidArguments

pytestmark = pytest.mark.anyio


@pytest.fixture(name="broker")
def broker_fixture() -> Iterator[Any]:
    """Give the Redis client of the broker, whose database is empty before and after the test."""
    with redis.Redis.from_url(celery_settings.broker_url.get_secret_value(), decode_responses=True) as client:
        client.flushdb()
        yield client
        client.flushdb()


def _queued(broker: Any) -> list[str]:
    """Return the ids of the queued tasks, also of those with another priority, oldest first."""
    messages = [text for key in broker.keys("high*") for text in reversed(broker.lrange(key, 0, -1))]
    return [json.loads(text)["headers"]["id"] for text in messages]


async def test_the_same_key_returns_the_same_task(broker: Any) -> None:
    ids = [(await enqueue(process_task.s({"a": 1}), idempotency_key="order 17")).id for _ in range(3)]
    other = await enqueue(process_task.s({"a": 1}), idempotency_key="order 18")
    assert _queued(broker) == [ids[0], other.id]
    assert set(ids) == {ids[0]}
    status = await status_of(ids[0])
    assert status is not None
    assert status.status == "PENDING"
    keys = broker.keys("idempotency/*")
    assert len(keys) == 2
    assert all(86_000 < broker.ttl(key) <= 86_400 for key in keys)


async def test_of_many_at_once_one_is_queued(broker: Any) -> None:
    calls = [enqueue(process_task.s({}), idempotency_key="order 17") for _ in range(50)]
    ids = {result.id for result in await asyncio.gather(*calls)}
    assert _queued(broker) == list(ids)


async def test_a_call_that_is_late_leaves_no_trace(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await enqueue(process_task.s({}), idempotency_key="order 17")
    (key,) = broker.keys("idempotency/*")
    stored = broker.getdel(key)
    publication = idempotency.publication

    def after_the_first(messages: list[Once], expires: int) -> Any:
        # The first call comes after this one has looked the key up.
        broker.set(key, stored)
        return publication(messages, expires)

    monkeypatch.setattr(idempotency, "publication", after_the_first)
    late = await enqueue(process_task.s({}).set(task_id="late"), idempotency_key="order 17")
    assert late.id == first.id
    assert _queued(broker) == [first.id]
    assert await status_of("late") is None


async def test_a_key_with_other_arguments_is_refused(broker: Any) -> None:
    await enqueue(process_task.s({"a": 1, "b": 2}), idempotency_key="order 17")
    await enqueue(process_task.s({"b": 2, "a": 1}), idempotency_key="order 17")
    with pytest.raises(IdempotencyKeyReused, match="process_task"):
        await enqueue(process_task.s({"a": 2}), idempotency_key="order 17")
    assert len(_queued(broker)) == 1


async def test_a_route_answers_409_for_a_key_with_other_arguments(
    broker: Any, app: FastAPI, client: httpx.AsyncClient
) -> None:
    @app.post("/queue/{number}")
    async def queue(number: int) -> str:
        return (await enqueue(process_task.s({"number": number}), idempotency_key="order 17")).id

    answers = [await client.post(f"/queue/{number}") for number in (1, 1, 2)]
    assert [answer.status_code for answer in answers] == [200, 200, 409]
    assert answers[0].json() == answers[1].json()


async def test_each_owner_has_keys_of_its_own(broker: Any) -> None:
    ids = {
        (await enqueue(process_task.s({}), owner, idempotency_key="1")).id
        for owner in (None, "user-keys-1", "user-keys-2")
    }
    assert set(_queued(broker)) == ids
    assert len(ids) == 3


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_of_the_wrong_length_is_refused(broker: Any, key: str) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        await enqueue(process_task.s({}), idempotency_key=key)


async def test_workflows_and_large_arguments_are_refused(broker: Any) -> None:
    with pytest.raises(ValueError, match="single task"):
        await enqueue(group(process_task.s({})), idempotency_key="1")
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    for bad in ({"a": "x" * 60_000}, {"a": object()}, {"a": {1, 2}.__iter__()}, {"a": deep}, {"__type__": 1}):
        with pytest.raises(InvalidArguments):
            await enqueue(process_task.s(bad), idempotency_key="1")
        with pytest.raises(InvalidArguments):
            async with session_scope() as db:
                await enqueue(process_task.s(bad), after_commit=db, outbox=True, idempotency_key="1")
    mixed: Any = {1: 1, "a": 2}
    ids = {(await enqueue(process_task.s(mixed), idempotency_key="1")).id for _ in range(2)}
    assert _queued(broker) == list(ids)


async def test_a_refused_call_does_not_use_the_key_up(broker: Any) -> None:
    signature = process_task.s({}).set(priority=0)
    broker.set("high", "no list")
    with pytest.raises(QueueUnavailable):
        await enqueue(signature, "user-refused", idempotency_key="1")
    assert broker.keys("idempotency/*") == []
    jobs: Any = celery_app.backend
    assert jobs.client.zcard(job_limit.jobs_key("user-refused")) == 0
    broker.delete("high")
    queued = await enqueue(signature, "user-refused", idempotency_key="1")
    assert _queued(broker) == [queued.id]


@pytest.mark.parametrize("outbox", [False, True])
async def test_in_a_session_the_key_is_committed_with_it(broker: Any, outbox: bool) -> None:
    async def call(*, commit: bool = True) -> str:
        async with session_scope() as db:
            signature = process_task.s({"a": 1})
            queued = await enqueue(signature, after_commit=db, outbox=outbox, idempotency_key="order 17")
            if not commit:
                await db.rollback()
        return queued.id

    dropped = await call(commit=False)
    first = await call()
    assert {await call() for _ in range(3)} == {first}
    assert dropped != first
    assert _queued(broker) == [first]
    with pytest.raises(IdempotencyKeyReused):
        async with session_scope() as db:
            await enqueue(process_task.s({"a": 2}), after_commit=db, outbox=outbox, idempotency_key="order 17")
    async with session_scope() as db:
        await db.execute(update(OnceKey).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert await call() != first


async def test_two_sessions_at_once_queue_one(broker: Any) -> None:
    async def call() -> str:
        async with session_scope() as db:
            return (await enqueue(process_task.s({}), after_commit=db, idempotency_key="order 17")).id

    ids = set(await asyncio.gather(*(call() for _ in range(10))))
    assert _queued(broker) == list(ids)
