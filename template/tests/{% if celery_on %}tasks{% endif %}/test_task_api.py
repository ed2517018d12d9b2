"""GET /task and POST /process without a worker: the state of a task is in Redis."""

import asyncio
import json
import secrets
import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest
from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from fastapi import FastAPI

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker.publish import RateLimited

pytestmark = pytest.mark.anyio


async def _status(client: httpx.AsyncClient, state: str, value: Any) -> dict[str, Any]:
    task_id = secrets.token_hex(8)
    celery_app.backend.store_result(task_id, value, state)
    response = await client.get(f"/task/{task_id}")
    assert response.status_code == 200
    shown: dict[str, Any] = response.json()
    assert (shown.pop("task_id"), shown.pop("status")) == (task_id, state)
    return shown


@pytest.mark.parametrize("state", [states.FAILURE, states.RETRY, states.REVOKED])
async def test_the_error_of_a_task_is_returned(client: httpx.AsyncClient, state: str) -> None:
    expected = {"result": None, "error": {"type": "ValueError", "message": "no such file"}}
    assert await _status(client, state, ValueError("no such file")) == expected


async def test_a_result_is_returned_and_worker_details_are_not(client: httpx.AsyncClient) -> None:
    assert await _status(client, states.SUCCESS, {"rows": 3}) == {"result": {"rows": 3}, "error": None}
    # Celery's information about the worker is not public.
    assert await _status(client, states.STARTED, {"pid": 1, "hostname": "w"}) == {"result": None, "error": None}


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (b"text", "text"),
        (b"\xff\x00", {"base64": "/wA="}),
        ("half of a pair: \ud800", "half of a pair: \\ud800"),
        ({"\udfff": [float("nan"), float("-inf")]}, {"\\udfff": ["nan", "-inf"]}),
        ({1: (2, 3)}, {"1": [2, 3]}),
        (Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 11, 27, tzinfo=UTC), "2026-11-27T00:00:00Z"),
        (2**80, 2**80),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_every_result_is_converted_to_json(client: httpx.AsyncClient, result: Any, shown: Any) -> None:
    assert await _status(client, states.SUCCESS, result) == {"result": shown, "error": None}
    assert await _status(client, "PROGRESS", result) == {"result": shown, "error": None}


async def test_an_error_with_invalid_unicode_is_returned(client: httpx.AsyncClient) -> None:
    response = await _status(client, states.FAILURE, ValueError("no \ud800"))
    assert response["error"] == {"type": "ValueError", "message": "no \\ud800"}


async def test_a_result_of_another_program_keeps_its_state(client: httpx.AsyncClient) -> None:
    backend: Any = celery_app.backend
    backend.client.set(
        backend.get_key_for_task("foreign"), '{"status": "SUCCESS", "result": {"__type__": "x", "__value__": 1}}'
    )
    response = await client.get("/task/foreign")
    assert response.status_code == 200
    assert response.json()["status"] == "SUCCESS"
    assert response.json()["error"]["type"] == "DecodeError"


class Unprintable(Exception):
    """Its text needs an attribute that the stored form does not have."""

    def __str__(self) -> str:
        return str(self.args[0].code)


async def test_an_error_without_text_is_returned_with_its_arguments(client: httpx.AsyncClient) -> None:
    response = await _status(client, states.FAILURE, Unprintable("no such code"))
    assert response["error"] == {"type": "Unprintable", "message": "('no such code',)"}


@pytest.mark.parametrize(
    "record",
    [
        '{"status": "SUCCESS", "result": ' + "9" * 5000 + "}",
        '{"status": "SUCCESS", "result": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"status": "SUCCESS"}',
        '{"status": "FAILURE", "result": "text"}',
        '{"status": "FAILURE", "result": {"exc_type": "system", "exc_message": ["true"], "exc_module": "os"}}',
        '{"status": "SUCCESS", "result": {"a',
        b'{"status": "SUCCESS", "result": "\xff"}',
    ],
    ids=["number", "depth", "no result", "no error", "no exception", "cut off", "no UTF-8"],
)
async def test_an_unreadable_record_keeps_its_state(client: httpx.AsyncClient, record: Any) -> None:
    backend: Any = celery_app.backend
    backend.client.set(backend.get_key_for_task("unreadable"), record)
    response = await client.get("/task/unreadable")
    assert response.status_code == 200
    assert response.json()["status"] in {states.SUCCESS, states.FAILURE}
    assert response.json()["error"]["type"] == "DecodeError"


@pytest.mark.parametrize("record", ["", "hello", "[1]", "{}", b"\xff"])
async def test_an_invalid_record_is_an_unknown_task(client: httpx.AsyncClient, record: Any) -> None:
    backend: Any = celery_app.backend
    backend.client.set(backend.get_key_for_task("unreadable"), record)
    assert (await client.get("/task/unreadable")).status_code == 404


async def test_a_queued_task_is_pending_and_an_unknown_task_returns_404(client: httpx.AsyncClient) -> None:
    task_id = process_task.delay({}).id
    assert (await client.get(f"/task/{task_id}")).json()["status"] == "PENDING"
    assert (await client.get(f"/task/{secrets.token_hex(8)}")).status_code == 404


async def test_process_responds_in_time_and_does_not_block_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "process_wait", 1.5)
    await client.post("/process", json={})
    longest = 0.0
    posted = asyncio.create_task(client.post("/process", json={"a": 1}))
    while not posted.done():
        start = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - start)
    response = await posted
    assert response.status_code == 202
    assert response.json()["status"] == "processing"
    assert (await client.get(f"/task/{response.json()['task_id']}")).json()["status"] == "PENDING"
    assert longest < 0.75


async def test_process_returns_the_error_of_a_failed_task(client: httpx.AsyncClient) -> None:
    with celery_app.connection_for_write() as connection:
        redis: Any = connection.default_channel.client
    redis.delete("high")
    posted = asyncio.create_task(client.post("/process", json={"a": 1}))
    _, queued = await asyncio.to_thread(redis.brpop, "high", 10)
    task_id = json.loads(queued)["headers"]["id"]
    celery_app.backend.store_result(task_id, ValueError("broken"), states.FAILURE)
    response = await posted
    assert response.status_code == 500
    assert response.json() == {
        "status": "failed",
        "task_id": task_id,
        "result": None,
        "error": {"type": "ValueError", "message": "broken"},
    }


async def test_a_full_queue_returns_429_with_the_time_to_wait(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "max_queue_depth", 1)
    process_task.delay({})
    try:
        response = await client.post("/process", json={"a": 1})
    finally:
        with celery_app.connection_for_write() as connection:
            connection.default_channel.queue_purge("high")
    assert (response.status_code, response.headers["Retry-After"]) == (429, "10")
    assert "tasks already wait in the queue 'high'" in response.json()["detail"]


async def test_a_call_over_its_rate_returns_429_with_the_time_to_wait(app: FastAPI, client: httpx.AsyncClient) -> None:
    @app.get("/limited")
    async def limited() -> None:
        raise RateLimited("it was called too often", 12.3)

    response = await client.get("/limited")
    assert (response.status_code, response.headers["Retry-After"]) == (429, "13")


def test_celerys_timeout_is_not_the_builtin_one() -> None:
    """The reason why docs/celery.md says which exception to catch around `.get(timeout=…)` in `def` code."""
    with pytest.raises(CeleryTimeoutError) as caught:
        process_task.delay({}).get(timeout=0.1)
    assert not isinstance(caught.value, TimeoutError)


def test_redis_delivers_priority_0_first_and_9_last() -> None:
    """The reason why docs/write-a-task.md recommends queues instead of `priority=`."""
    with celery_app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.queue_purge("high")
        for priority in (9, 3, 0):
            process_task.apply_async(({},), priority=priority)
        order = [channel.basic_get("high", no_ack=True).properties["priority"] for _ in range(3)]
    assert order == [0, 3, 9]
