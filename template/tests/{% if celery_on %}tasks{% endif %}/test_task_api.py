"""GET /task and POST /process, without a worker: what is known of a task stands in Redis."""

import asyncio
import json
import secrets
import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task

pytestmark = pytest.mark.anyio


async def _status(client: httpx.AsyncClient, state: str, value: Any) -> dict[str, Any]:
    task_id = secrets.token_hex(8)
    celery_app.backend.store_result(task_id, value, state)
    answer = await client.get(f"/task/{task_id}")
    assert answer.status_code == 200
    shown: dict[str, Any] = answer.json()
    assert (shown.pop("task_id"), shown.pop("status")) == (task_id, state)
    return shown


@pytest.mark.parametrize("state", [states.FAILURE, states.RETRY, states.REVOKED])
async def test_what_went_wrong_is_shown(client: httpx.AsyncClient, state: str) -> None:
    expected = {"result": None, "error": {"type": "ValueError", "message": "no such file"}}
    assert await _status(client, state, ValueError("no such file")) == expected


async def test_a_result_and_a_start_are_shown(client: httpx.AsyncClient) -> None:
    assert await _status(client, states.SUCCESS, {"rows": 3}) == {"result": {"rows": 3}, "error": None}
    # What Celery notes about the worker is nobody's business.
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
async def test_every_result_is_shown_in_a_defined_form(client: httpx.AsyncClient, result: Any, shown: Any) -> None:
    assert await _status(client, states.SUCCESS, result) == {"result": shown, "error": None}
    assert await _status(client, "PROGRESS", result) == {"result": shown, "error": None}


async def test_an_error_that_cannot_be_encoded_is_shown(client: httpx.AsyncClient) -> None:
    answer = await _status(client, states.FAILURE, ValueError("no \ud800"))
    assert answer["error"] == {"type": "ValueError", "message": "no \\ud800"}


async def test_a_result_of_another_program_keeps_its_state(client: httpx.AsyncClient) -> None:
    backend: Any = celery_app.backend
    backend.client.set(
        backend.get_key_for_task("foreign"), '{"status": "SUCCESS", "result": {"__type__": "x", "__value__": 1}}'
    )
    answer = await client.get("/task/foreign")
    assert answer.status_code == 200
    assert answer.json()["status"] == "SUCCESS"
    assert answer.json()["error"]["type"] == "DecodeError"


class Unprintable(Exception):
    """Shows what its code sets, and what is stored does not have."""

    def __str__(self) -> str:
        return str(self.args[0].code)


async def test_an_error_without_text_is_shown_by_its_arguments(client: httpx.AsyncClient) -> None:
    answer = await _status(client, states.FAILURE, Unprintable("no such code"))
    assert answer["error"] == {"type": "Unprintable", "message": "('no such code',)"}


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
async def test_a_record_that_cannot_be_read_keeps_its_state(client: httpx.AsyncClient, record: Any) -> None:
    backend: Any = celery_app.backend
    backend.client.set(backend.get_key_for_task("unreadable"), record)
    answer = await client.get("/task/unreadable")
    assert answer.status_code == 200
    assert answer.json()["status"] in {states.SUCCESS, states.FAILURE}
    assert answer.json()["error"]["type"] == "DecodeError"


@pytest.mark.parametrize("record", ["", "hello", "[1]", "{}", b"\xff"])
async def test_what_is_no_record_is_an_unknown_task(client: httpx.AsyncClient, record: Any) -> None:
    backend: Any = celery_app.backend
    backend.client.set(backend.get_key_for_task("unreadable"), record)
    assert (await client.get("/task/unreadable")).status_code == 404


async def test_a_queued_task_is_pending_and_an_unknown_one_404(client: httpx.AsyncClient) -> None:
    task_id = process_task.delay({}).id
    assert (await client.get(f"/task/{task_id}")).json()["status"] == "PENDING"
    assert (await client.get(f"/task/{secrets.token_hex(8)}")).status_code == 404


async def test_process_answers_in_time_and_never_stops_the_loop(
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
    answer = await posted
    assert answer.status_code == 202
    assert answer.json()["status"] == "processing"
    assert (await client.get(f"/task/{answer.json()['task_id']}")).json()["status"] == "PENDING"
    assert longest < 0.75


async def test_process_tells_a_failure(client: httpx.AsyncClient) -> None:
    with celery_app.connection_for_write() as connection:
        redis: Any = connection.default_channel.client
    redis.delete("high")
    posted = asyncio.create_task(client.post("/process", json={"a": 1}))
    _, queued = await asyncio.to_thread(redis.brpop, "high", 10)
    task_id = json.loads(queued)["headers"]["id"]
    celery_app.backend.store_result(task_id, ValueError("broken"), states.FAILURE)
    answer = await posted
    assert answer.status_code == 500
    assert answer.json() == {
        "status": "failed",
        "task_id": task_id,
        "result": None,
        "error": {"type": "ValueError", "message": "broken"},
    }


def test_celerys_timeout_is_not_the_builtin_one() -> None:
    """Why docs/celery.md says which to catch around `.get(timeout=…)` in `def` code."""
    with pytest.raises(CeleryTimeoutError) as caught:
        process_task.delay({}).get(timeout=0.1)
    assert not isinstance(caught.value, TimeoutError)


def test_redis_hands_out_priority_0_first_and_9_last() -> None:
    """Why docs/celery.md says to use queues instead of `priority=`."""
    with celery_app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.queue_purge("high")
        for priority in (9, 3, 0):
            process_task.apply_async(({},), priority=priority)
        order = [channel.basic_get("high", no_ack=True).properties["priority"] for _ in range(3)]
    assert order == [0, 3, 9]
