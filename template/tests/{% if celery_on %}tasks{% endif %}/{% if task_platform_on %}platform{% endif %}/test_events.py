"""GET /tasks/{task_id}/events: what a client gets, who gets it, and what is left when the client is gone."""

import asyncio
import functools
import json
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2 as httpx
import pytest
from celery import states
from celery.app.task import Context
from fastapi import FastAPI

from app.api.task_access import TaskViewer, operator_or_owner
from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.features.tasks.platform import events
from app.tasks.process_task import process_task
from app.worker import watch
from app.worker.broker import results_client
from app.worker.publish import enqueue
from app.worker.watch import Watcher

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def operator(app: FastAPI) -> AsyncIterator[None]:
    """Let every request come from an operator, and check that no stream is left."""
    results_client().flushdb()
    _log_in(app, None)
    yield
    app.dependency_overrides.clear()
    assert not watch._hubs
    assert not events._streams


def _log_in(app: FastAPI, owner: str | None) -> None:
    app.dependency_overrides[operator_or_owner] = lambda: TaskViewer(owner)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is another server's
            await asyncio.sleep(0.01)


async def _queued(owner: str | None = None) -> str:
    return (await enqueue(process_task.s({}), owner)).id


def _store(task_id: str, state: str, value: Any = None) -> None:
    request = Context(id=task_id, task=process_task.name, hostname="w1@host", retries=0)
    celery_app.backend.store_result(task_id, value, state, request=request)


def _events(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream: their fields, with the data read."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


def _is_sent(watcher: Watcher, state: str) -> bool:
    record = watcher._newest
    return not watcher._changed.is_set() and (record.state == state or record.progress is not None)


def _open(client: httpx.AsyncClient, task_id: str) -> asyncio.Task[httpx.Response]:
    # The client of the tests has the answer when the stream has ended.
    return asyncio.create_task(client.get(f"/tasks/{task_id}/events"))


async def _opened(count: int = 1) -> None:
    await _until(lambda: len(results_client().pubsub_channels("*/record")) == count)


async def test_a_stream_has_states_and_progress_and_ends_with_the_task(client: httpx.AsyncClient) -> None:
    task_id = await _queued()
    stream = _open(client, task_id)
    await _opened()
    (hub,) = watch._hubs.values()
    (watcher,) = hub._watchers[next(iter(hub._watchers))]
    for state, value in ((states.STARTED, {}), ("PROGRESS", {"done": 1}), (states.SUCCESS, 1)):
        await asyncio.to_thread(_store, task_id, state, value)
        # Each is sent before the next one replaces it.
        await _until(functools.partial(_is_sent, watcher, state))
    response = await asyncio.wait_for(stream, 20)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    found = _events(response.text)
    assert [(one["event"], one["data"]["state"]) for one in found] == [
        ("state", "PENDING"),
        ("state", "STARTED"),
        ("progress", "STARTED"),
        ("state", "SUCCESS"),
    ]
    assert found[2]["data"]["progress"] == {"state": "PROGRESS", "value": {"done": 1}}
    assert found[0]["data"]["task_id"] == task_id
    assert len({one["id"] for one in found}) == 4


async def test_a_task_that_has_ended_is_one_event(client: httpx.AsyncClient) -> None:
    task_id = await _queued()
    _store(task_id, states.FAILURE, ValueError("no \ud800"))
    (event,) = _events((await client.get(f"/tasks/{task_id}/events")).text)
    assert (event["event"], event["data"]["state"]) == ("state", "FAILURE")
    shown = (await client.get(f"/tasks/{task_id}")).json()
    assert event["data"] == {name: value for name, value in shown.items() if name not in {"attempts", "children"}}


async def test_a_client_that_has_seen_the_end_gets_204(client: httpx.AsyncClient) -> None:
    task_id = await _queued()
    _store(task_id, states.SUCCESS)
    (event,) = _events((await client.get(f"/tasks/{task_id}/events")).text)
    response = await client.get(f"/tasks/{task_id}/events", headers={"Last-Event-ID": event["id"]})
    assert (response.status_code, response.content) == (204, b"")
    again = await client.get(f"/tasks/{task_id}/events", headers={"Last-Event-ID": "x"})
    assert _events(again.text) == [event]


async def test_a_client_that_connects_again_gets_what_has_changed_since(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_AGE", 0.1)
    task_id = await _queued()
    (first,) = _events((await client.get(f"/tasks/{task_id}/events")).text)
    # Nothing has changed.
    assert _events((await client.get(f"/tasks/{task_id}/events", headers={"Last-Event-ID": first["id"]})).text) == []
    _store(task_id, states.STARTED, {})
    _store(task_id, "PROGRESS", {"done": 1})
    (missed,) = _events((await client.get(f"/tasks/{task_id}/events", headers={"Last-Event-ID": first["id"]})).text)
    assert (missed["event"], missed["data"]["state"]) == ("state", "STARTED")
    assert missed["data"]["progress"]["value"] == {"done": 1}


async def test_an_unknown_task_and_that_of_another_owner_are_the_same_404(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    _log_in(app, "user-1")
    task_id = await _queued("user-2")
    refused, unknown = await client.get(f"/tasks/{task_id}/events"), await client.get("/tasks/none/events")
    assert refused.status_code == unknown.status_code == 404
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"].replace(task_id, "none") == unknown.json()["detail"]
    _store(own := await _queued("user-1"), states.SUCCESS)
    assert (await client.get(f"/tasks/{own}/events")).status_code == 200


async def test_without_a_viewer_there_is_no_stream(app: FastAPI, client: httpx.AsyncClient) -> None:
    app.dependency_overrides.clear()
    assert (await client.get("/tasks/none/events")).status_code in {401, 403}


async def test_a_client_that_leaves_leaves_nothing(client: httpx.AsyncClient) -> None:
    stream = _open(client, await _queued())
    await _opened()
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)
    await _until(lambda: not watch._hubs)
    await _until(lambda: not results_client().pubsub_channels("*/record"))


async def test_an_owner_has_a_limited_number_of_streams(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS_OF_OWNER", 1)
    _log_in(app, "user-1")
    first, second = await _queued("user-1"), await _queued("user-1")
    stream = _open(client, first)
    await _opened()
    refused = await client.get(f"/tasks/{second}/events")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    _log_in(app, None)
    _store(second, states.SUCCESS)
    assert (await client.get(f"/tasks/{second}/events")).status_code == 200
    _store(first, states.SUCCESS)
    await asyncio.wait_for(stream, 20)


async def test_a_process_has_a_limited_number_of_streams(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "max_watchers", 1)
    task_id = await _queued()
    stream = _open(client, task_id)
    await _opened()
    refused = await client.get(f"/tasks/{task_id}/events")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert refused.headers["content-type"] == "application/problem+json"
    _store(task_id, states.SUCCESS)
    await asyncio.wait_for(stream, 20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_that_stops_the_process_ends_streams_first(app: FastAPI, number: signal.Signals) -> None:
    handled: list[int] = []
    before = signal.signal(number, lambda received, _: handled.append(received))
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            stream = _open(client, await _queued())
            await _opened()
            signal.raise_signal(number)
            response = await asyncio.wait_for(stream, 20)
        assert [event["data"]["state"] for event in _events(response.text)] == ["PENDING"]
        assert handled == [number]
        signal.raise_signal(number)
        assert handled == [number, number]
    finally:
        signal.signal(number, before)


async def test_a_signal_without_a_handler_keeps_its_effect(app: FastAPI) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        async with app.router.lifespan_context(app):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_the_events_are_documented(app: FastAPI) -> None:
    operation = app.openapi()["paths"]["/tasks/{task_id}/events"]["get"]
    data = operation["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]["properties"]["data"]
    assert data["contentSchema"] == {"$ref": "#/components/schemas/TaskSummary"}
    assert {"204", "401", "403", "404", "422", "429", "503"} <= operation["responses"].keys()
    assert "last-event-id" in {parameter["name"] for parameter in operation["parameters"]}
