"""Cancelling and retrying tasks by the API: one by its id, or all that match a filter."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from celery import states
from celery.app.task import Context
from fastapi import FastAPI

from app.api.task_access import TaskViewer, operator_or_owner
from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.core.database import session_scope
from app.tasks.process_task import process_task
from app.worker import outbox
from app.worker.broker import QueueUnavailable, broker_client, results_client
from app.worker.publish import enqueue

pytestmark = pytest.mark.anyio

PROBLEM = "application/problem+json"


@pytest.fixture(autouse=True)
def operator(app: FastAPI) -> Iterator[None]:
    """Let every request come from an operator, in a result store and queues without data."""
    _empty()
    app.dependency_overrides[operator_or_owner] = lambda: TaskViewer(None)
    yield
    app.dependency_overrides.clear()
    _empty()


def _empty() -> None:
    results_client().flushdb()
    with broker_client() as client:
        client.flushdb()


async def _post(client: httpx.AsyncClient, path: str, status: int = 202, **body: Any) -> Any:
    response = await client.post(path, json=body or None)
    assert response.status_code == status, response.text
    if status >= 400:
        assert response.headers["content-type"] == PROBLEM
    return response.json()


async def _queued(owner: str | None = None, **data: Any) -> str:
    return (await enqueue(process_task.s(data), owner)).id


async def _failed(owner: str | None = None, state: str = states.FAILURE, **data: Any) -> str:
    """Return the id of a task that a worker has ended."""
    task_id = await _queued(owner, **data)
    request = Context(
        id=task_id,
        task=process_task.name,
        args=[data],
        kwargs={},
        hostname="w1@host",
        headers={},
        delivery_info={"routing_key": "high"},
    )
    value = None if state == states.SUCCESS else ValueError("x")
    celery_app.backend.store_result(task_id, value, state, request=request)
    return task_id


async def _state(client: httpx.AsyncClient, task_id: str) -> str:
    return str((await client.get(f"/tasks/{task_id}")).json()["state"])


async def test_a_waiting_task_is_cancelled_also_twice(client: httpx.AsyncClient) -> None:
    task_id = await _queued()
    for _ in range(2):
        assert await _post(client, f"/tasks/{task_id}/cancel") == {"task_id": task_id, "state": "REVOKED"}
    assert await _state(client, task_id) == "REVOKED"


@pytest.mark.parametrize("state", [states.RETRY, states.STARTED])
async def test_a_task_that_is_to_be_retried_is_revoked_and_a_running_one_is_left_to_its_worker(
    client: httpx.AsyncClient, state: str
) -> None:
    task_id = await _queued()
    celery_app.backend.store_result(task_id, ValueError("x") if state == states.RETRY else {}, state)
    cancelled = await _post(client, f"/tasks/{task_id}/cancel?terminate=false")
    assert cancelled["state"] == ("REVOKED" if state == states.RETRY else "STARTED")


@pytest.mark.parametrize("state", [states.SUCCESS, states.FAILURE])
async def test_a_task_that_has_ended_is_not_cancelled(client: httpx.AsyncClient, state: str) -> None:
    task_id = await _failed(state=state)
    problem = await _post(client, f"/tasks/{task_id}/cancel", 409)
    assert problem["detail"] == f"Task {task_id} has ended as {state}."
    assert await _state(client, task_id) == state


async def test_a_task_in_the_outbox_is_cancelled_before_it_is_published(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_relay() -> None:
        """Leave the row for later."""

    monkeypatch.setattr(outbox, "relay", no_relay)
    async with session_scope() as db:
        task_id = (await enqueue(process_task.s({}), after_commit=db, outbox=True)).id
    assert await _post(client, f"/tasks/{task_id}/cancel") == {"task_id": task_id, "state": "REVOKED"}


async def test_an_unknown_task_is_a_404(client: httpx.AsyncClient) -> None:
    for action in ("cancel", "retry"):
        problem = await _post(client, f"/tasks/none/{action}", 404)
        assert problem["detail"] == "You have no task none: it was never queued, or its record has expired."


async def test_a_failed_task_is_retried_once(client: httpx.AsyncClient) -> None:
    task_id = await _failed("user-1", a=1)
    responses = [await client.post(f"/tasks/{task_id}/retry") for _ in range(2)]
    responses += await asyncio.gather(*(client.post(f"/tasks/{task_id}/retry") for _ in range(5)))
    new = responses[0].json()["task_id"]
    for response in responses:
        assert (response.status_code, response.headers["Location"]) == (202, f"/tasks/{new}")
        assert response.json() == {"task_id": new, "replay_of": task_id}
    shown = (await client.get(f"/tasks/{new}")).json()
    assert (shown["state"], shown["replay_of"], shown["owner"], shown["arguments"]) == (
        "PENDING",
        task_id,
        "user-1",
        "({'a': 1},)",
    )
    assert len((await client.get("/tasks")).json()["tasks"]) == 2


async def test_what_cannot_run_again_is_a_409_with_the_reason(client: httpx.AsyncClient) -> None:
    waiting, without_message = await _queued(), await _queued()
    celery_app.backend.store_result(without_message, ValueError("x"), states.FAILURE)
    assert "is PENDING" in (await _post(client, f"/tasks/{waiting}/retry", 409))["detail"]
    assert "is not stored" in (await _post(client, f"/tasks/{without_message}/retry", 409))["detail"]


async def test_an_owner_with_too_many_jobs_is_a_429(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await _failed("user-1")
    await _queued("user-1")
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 1)
    app.dependency_overrides[operator_or_owner] = lambda: TaskViewer("user-1")
    response = await client.post(f"/tasks/{task_id}/retry")
    assert (response.status_code, response.headers["Retry-After"]) == (429, "30")
    assert response.headers["content-type"] == PROBLEM


async def test_a_frozen_redis_is_a_503(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise QueueUnavailable("The task queue does not answer; try again later.")

    for module in ("actions", "bulk"):
        monkeypatch.setattr(f"app.features.tasks.platform.{module}.in_thread", refuse)
    for path in ("/tasks/x/cancel", "/tasks/x/retry", "/tasks/cancel", "/tasks/retry"):
        response = await client.post(path, json={"filter": {"name": "x"}})
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert response.headers["content-type"] == PROBLEM


# --- many ---


async def _all_pages(client: httpx.AsyncClient, path: str, **fields: Any) -> list[dict[str, Any]]:
    pages, cursor, body = [], dict[str, str](), {"dry_run": False, **fields}
    while True:
        pages.append(await _post(client, path, 200, **body, **cursor))
        if pages[-1]["next_cursor"] is None:
            return pages
        cursor = {"cursor": pages[-1]["next_cursor"]}


async def test_a_dry_run_returns_what_would_be_done_and_does_nothing(client: httpx.AsyncClient) -> None:
    failed, waiting = await _failed(), await _queued()
    would = await _post(client, "/tasks/retry", 200, filter={"name": process_task.name})
    assert (would["done"], [(task["task_id"], task["outcome"]) for task in would["tasks"]]) == (
        0,
        [(failed, "selected")],
    )
    would = await _post(client, "/tasks/cancel", 200, filter={"name": process_task.name})
    assert (would["done"], [(task["task_id"], task["outcome"]) for task in would["tasks"]]) == (
        0,
        [(waiting, "selected")],
    )
    assert (await _state(client, waiting), len((await client.get("/tasks")).json()["tasks"])) == ("PENDING", 2)


async def test_failed_tasks_are_retried_page_by_page_once(client: httpx.AsyncClient) -> None:
    failed = [await _failed(number=number) for number in range(7)]
    await _failed(state=states.REVOKED)
    refused = await _queued()
    celery_app.backend.store_result(refused, ValueError("x"), states.FAILURE)
    pages = await _all_pages(client, "/tasks/retry", filter={"queue": "high"}, limit=3)
    assert ([len(page["tasks"]) for page in pages], sum(page["done"] for page in pages)) == ([3, 3, 2], 7)
    assert sum(page["refused"] for page in pages) == 1
    tasks = [task for page in pages for task in page["tasks"]]
    new = {task["task_id"]: task["retried_as"] for task in tasks}
    assert set(new) == {*failed, refused}
    (reason,) = [task["reason"] for task in tasks if task["outcome"] == "refused"]
    assert "is not stored" in reason
    # Again, as after a lost answer: nothing more is queued.
    again = await _all_pages(client, "/tasks/retry", filter={"queue": "high"}, limit=100)
    assert {task["task_id"]: task["retried_as"] for page in again for task in page["tasks"]} == new
    assert len((await client.get("/tasks", params={"state": "PENDING"})).json()["tasks"]) == 7


async def test_unfinished_tasks_are_cancelled_by_filter(client: httpx.AsyncClient) -> None:
    mine = [await _queued("user-1") for _ in range(3)]
    theirs, ended = await _queued("user-2"), await _failed("user-1")
    started = await _queued("user-1")
    celery_app.backend.store_result(started, {}, states.STARTED)
    (page,) = await _all_pages(client, "/tasks/cancel", filter={"owner": "user-1", "state": "PENDING"})
    assert {task["task_id"] for task in page["tasks"]} == set(mine)
    assert (page["done"], page["refused"]) == (3, 0)
    (page,) = await _all_pages(client, "/tasks/cancel", filter={"owner": "user-1"}, terminate=False)
    assert [task["task_id"] for task in page["tasks"]] == [started]
    found = [await _state(client, task_id) for task_id in (*mine, theirs, ended, started)]
    assert found == ["REVOKED"] * 3 + ["PENDING", "FAILURE", "STARTED"]


async def test_the_time_of_queueing_selects(client: httpx.AsyncClient) -> None:
    before, after = await _queued(), await _queued()
    since = (await client.get(f"/tasks/{after}")).json()["queued_at"]
    (page,) = await _all_pages(client, "/tasks/cancel", filter={"since": since})
    assert [task["task_id"] for task in page["tasks"]] == [after]
    assert await _state(client, before) == "PENDING"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": {}},
        {"filter": {"name": None}},
        {"filter": {"status": "FAILURE"}},
        {"filter": {"state": "SUCCESS"}},
        {"filter": {"name": ""}},
        {"filter": {"since": "2026-11-27T00:00:00"}},
        {"filter": {"name": "x"}, "limit": 101},
        {"filter": {"name": "x"}, "limit": 0},
        {"filter": {"name": "x"}, "cursor": "x"},
        {"filter": {"name": "x"}, "dryrun": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("action", ["retry", "cancel"])
async def test_an_invalid_selection_is_a_422(client: httpx.AsyncClient, action: str, body: dict[str, Any]) -> None:
    waiting = await _queued()
    response = await client.post(f"/tasks/{action}", json=body)
    assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM)
    assert response.json()["errors"][0]["loc"][0] == "body"
    assert await _state(client, waiting) == "PENDING"


async def test_a_full_page_without_matches_continues(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await _queued()
    for _ in range(4):
        await _failed()
    pages = await _all_pages(client, "/tasks/cancel", filter={"name": process_task.name}, limit=2)
    assert [len(page["tasks"]) for page in pages] == [0, 0, 1]
    assert await _state(client, waiting) == "REVOKED"
