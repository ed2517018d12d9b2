"""GET /tasks and GET /tasks/{task_id} for an operator."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
from celery import states
from celery.app.task import Context
from fastapi import FastAPI

from app.api.task_access import TaskViewer, operator_or_owner
from app.core.celery import celery_app
from app.tasks.process_task import process_task
from app.worker.broker import QueueUnavailable, results_client
from app.worker.publish import enqueue

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def operator(app: FastAPI) -> Iterator[None]:
    """Let every request come from an operator, in a result store without data."""
    results_client().flushdb()
    app.dependency_overrides[operator_or_owner] = lambda: TaskViewer(None)
    yield
    app.dependency_overrides.clear()


async def _get(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def _ids(client: httpx.AsyncClient, **params: Any) -> list[str]:
    return [task["task_id"] for task in (await _get(client, "/tasks", **params))["tasks"]]


async def test_the_last_queued_task_comes_first(client: httpx.AsyncClient) -> None:
    before = datetime.now(UTC)
    first = (await enqueue(process_task.s({"a": 1}), owner="user-1")).id
    second = (await enqueue(process_task.s({}))).id
    page = await _get(client, "/tasks")
    assert [task["task_id"] for task in page["tasks"]] == [second, first]
    assert page["next_cursor"] is None
    shown = page["tasks"][1]
    assert (shown["name"], shown["queue"], shown["state"], shown["owner"]) == (
        process_task.name,
        "high",
        "PENDING",
        "user-1",
    )
    assert (shown["arguments"], shown["keyword_arguments"], shown["attempt"]) == ("({'a': 1},)", "{}", 0)
    assert before - timedelta(seconds=1) < datetime.fromisoformat(shown["queued_at"])


async def test_all_filters_must_match(client: httpx.AsyncClient) -> None:
    ended = (await enqueue(process_task.s({}), owner="user-1")).id
    waiting = (await enqueue(process_task.s({}).set(queue="long"), owner="user-2")).id
    celery_app.backend.store_result(ended, ValueError("x"), states.FAILURE)
    queued = (await _get(client, f"/tasks/{waiting}"))["queued_at"]
    assert await _ids(client, state="FAILURE") == [ended]
    assert await _ids(client, queue="long", name=process_task.name) == [waiting]
    assert await _ids(client, owner="user-1") == [ended]
    assert await _ids(client, owner="user-1", state="PENDING") == []
    assert await _ids(client, since=queued) == [waiting]
    assert await _ids(client, until=queued, limit=1) == [waiting]
    assert await _ids(client, since="9999-12-31T23:59:59Z") == []
    assert await _ids(client, since="0001-01-01T00:00:00Z") == [waiting, ended]


async def test_the_cursor_continues_after_the_last_task_of_a_page(client: httpx.AsyncClient) -> None:
    queued = [(await enqueue(process_task.s({}))).id for _ in range(5)]
    found, cursor = [], dict[str, str]()
    while True:
        page = await _get(client, "/tasks", limit=2, **cursor)
        found += [task["task_id"] for task in page["tasks"]]
        # A task that is queued meanwhile is before the first page.
        await enqueue(process_task.s({}))
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == queued[::-1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "DONE"),
        ("limit", "0"),
        ("limit", "101"),
        ("since", "2026-11-27T00:00:00"),
        ("until", "x"),
        ("owner", ""),
        ("name", "x" * 300),
        ("cursor", "x"),
        ("cursor", "é" * 10),
        ("cursor", "LTE6eA"),
        ("cursor", "OTk5OTk5OTk5OTk5OTk5OTk5OTk6eA"),
        ("cursor", "x" * 500),
        ("status", "FAILURE"),
    ],
)
async def test_an_invalid_parameter_is_a_422_that_names_it(client: httpx.AsyncClient, name: str, value: str) -> None:
    response = await client.get("/tasks", params={name: value})
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert response.json()["title"] == "Unprocessable Entity" or response.json()["title"] == "Unprocessable Content"
    assert [error["loc"] for error in response.json()["errors"]] == [["query", name]]


async def test_a_task_is_shown_with_its_attempts_and_children(client: httpx.AsyncClient) -> None:
    task_id = (await enqueue(process_task.s({}))).id
    child = process_task.apply_async(({},), parent_id=task_id, root_id=task_id).id
    request = Context(id=task_id, task=process_task.name, hostname="w1@host", retries=0)
    for state, value in ((states.STARTED, {}), (states.RETRY, ValueError("first"))):
        celery_app.backend.store_result(task_id, value, state, request=request, next_retry=60)
    request.retries = 1
    celery_app.backend.store_result(task_id, {}, states.STARTED, request=request)
    celery_app.backend.store_result(task_id, ValueError("\ud800"), states.FAILURE, request=request)
    shown = await _get(client, f"/tasks/{task_id}")
    assert (shown["state"], shown["attempt"], shown["worker"]) == ("FAILURE", 2, "w1@host")
    assert [(one["attempt"], one["error"]) for one in shown["attempts"]] == [
        (1, {"type": "ValueError", "message": "first"}),
        (2, {"type": "ValueError", "message": "\\ud800"}),
    ]
    assert [one["task_id"] for one in shown["children"]] == [child]
    assert (await _get(client, f"/tasks/{child}"))["parent_id"] == task_id


async def test_an_unknown_task_is_a_404(client: httpx.AsyncClient) -> None:
    response = await client.get("/tasks/none")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "You have no task none: it was never queued, or its record has expired.",
    }


async def test_a_frozen_redis_is_a_503(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise QueueUnavailable("The task queue does not answer; try again later.")

    for module in ("listing", "detail"):
        monkeypatch.setattr(f"app.features.tasks.platform.{module}.in_thread", refuse)
    for path in ("/tasks", "/tasks/x"):
        response = await client.get(path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert response.headers["content-type"] == "application/problem+json"


async def test_a_list_while_tasks_change_has_each_once(client: httpx.AsyncClient) -> None:
    queued = [(await enqueue(process_task.s({}))).id for _ in range(30)]

    async def change() -> None:
        for task_id in queued:
            for state in (states.STARTED, states.SUCCESS):
                await asyncio.to_thread(celery_app.backend.store_result, task_id, None, state)

    changing = asyncio.create_task(change())
    while not changing.done():
        found, cursor = [], dict[str, str]()
        while True:
            page = await _get(client, "/tasks", limit=7, **cursor)
            found += [task["task_id"] for task in page["tasks"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert found == queued[::-1]
    await changing
