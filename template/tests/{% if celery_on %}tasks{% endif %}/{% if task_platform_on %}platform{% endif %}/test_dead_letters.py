"""The routes of dead letters for an operator."""

import base64
import json
import uuid
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI

from app.api.task_access import TaskViewer, operator_or_owner
from app.tasks.process_task import process_task
from app.worker import dead_letters, messages
from app.worker.broker import QueueUnavailable
from tests.worker.test_dead_letters import ENDED, received

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("broker")]

UNKNOWN = "0" * 32


def _bury(broker: Any, error: BaseException = ENDED, **message: Any) -> str:
    """Store a dead letter and return its id."""
    dead_letters.keep(received(str(uuid.uuid4()), **message), error)
    return str(dead_letters.letters(broker)[0].letter_id)


def _length(broker: Any) -> int:
    return sum(broker.llen("default" + ending) for ending in ("", *messages.keys().endings))


async def test_dead_letters_are_listed_and_grouped_by_error(client: httpx.AsyncClient, broker: Any) -> None:
    first, second, third = _bury(broker), _bury(broker, KeyError("x")), _bury(broker)
    page = (await client.get("/dead-letters")).json()
    assert [letter["letter_id"] for letter in page["letters"]] == [third, second, first]
    assert [(group["error"], group["task"], group["number"]) for group in page["groups"]] == [
        ("ValueError", process_task.name, 2),
        ("KeyError", process_task.name, 1),
    ]
    assert (page["total"], page["next_cursor"]) == (3, None)
    found = (await client.get("/dead-letters", params={"error": "KeyError", "queue": "default"})).json()
    assert [letter["letter_id"] for letter in found["letters"]] == [second]
    assert (await client.get("/dead-letters", params={"task": "other"})).json()["total"] == 0


async def test_pages_have_each_dead_letter_once(client: httpx.AsyncClient, broker: Any) -> None:
    stored = [_bury(broker) for _ in range(5)]
    found, cursor = [], dict[str, str]()
    while True:
        page = (await client.get("/dead-letters", params={"limit": "2", **cursor})).json()
        found += [letter["letter_id"] for letter in page["letters"]]
        # A newer one is before the first page.
        _bury(broker)
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == stored[::-1]


async def test_a_dead_letter_is_shown_with_its_arguments(client: httpx.AsyncClient, broker: Any) -> None:
    letter_id = _bury(broker)
    shown = (await client.get(f"/dead-letters/{letter_id}")).json()
    assert (shown["letter_id"], len(shown["arguments"]), shown["keyword_arguments"]) == (letter_id, 1, {})
    assert (shown["headers"]["task"], shown["body"]) == (process_task.name, None)


@pytest.mark.parametrize(
    "body",
    [b"\xff", b"no JSON", b"[" * 30_000, b"[[" + b"[" * 200 + b"]" * 200 + b"], {}, {}]", b"[[], {}]", b'{"a": NaN}'],
)
async def test_a_message_that_no_worker_can_run_is_shown_as_it_is(
    body: bytes, client: httpx.AsyncClient, broker: Any
) -> None:
    message = received()
    message.body = body
    message.headers["deep"] = json.loads("[" * 200 + "]" * 200)
    dead_letters.keep(message, ValueError("\ud800"))
    response = await client.get(f"/dead-letters/{dead_letters.letters(broker)[0].letter_id}")
    assert response.status_code == 200, response.text
    assert base64.b64decode(response.json()["body"]) == body
    assert response.json()["arguments"] is None


async def test_redacted_arguments_are_shown_nowhere_and_not_replayed(client: httpx.AsyncClient, broker: Any) -> None:
    dead_letters.keep(received("a-secret", argsrepr=dead_letters.HIDDEN, kwargsrepr="a-secret"), ENDED)
    letter_id = dead_letters.letters(broker)[0].letter_id
    for path in ("/dead-letters", f"/dead-letters/{letter_id}"):
        assert "a-secret" not in (await client.get(path)).text
    refused = await client.post(f"/dead-letters/{letter_id}/replay")
    assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
    assert "redacted" in refused.json()["detail"]
    bulk = (await client.post("/dead-letters/replay", json={"dry_run": False})).json()
    assert ([one["letter_id"] for one in bulk["refused"]], bulk["done"]) == ([letter_id], [])


async def test_a_replay_deletes_the_letter_and_names_the_new_task(client: httpx.AsyncClient, broker: Any) -> None:
    letter_id = _bury(broker)
    response = await client.post(f"/dead-letters/{letter_id}/replay")
    assert response.status_code == 202, response.text
    task = (await client.get(f"/tasks/{response.json()['task_id']}")).json()
    assert (task["state"], task["name"]) == ("PENDING", process_task.name)
    assert task["replay_of"]
    assert _length(broker) == 1
    for method, path in (("POST", f"/dead-letters/{letter_id}/replay"), ("GET", f"/dead-letters/{letter_id}")):
        assert (await client.request(method, path)).status_code == 404


async def test_a_dead_letter_is_deleted_once(client: httpx.AsyncClient, broker: Any) -> None:
    letter_id = _bury(broker)
    assert (await client.delete(f"/dead-letters/{letter_id}")).status_code == 204
    assert (await client.delete(f"/dead-letters/{letter_id}")).status_code == 404
    assert _length(broker) == 0


@pytest.mark.parametrize("action", ["replay", "delete"])
async def test_a_bulk_call_changes_nothing_unless_asked_and_is_bounded(
    action: str, client: httpx.AsyncClient, broker: Any
) -> None:
    stored = [_bury(broker) for _ in range(3)]
    other = _bury(broker, KeyError("x"))
    body: dict[str, Any] = {"error": "ValueError", "limit": 2}
    dry = (await client.post(f"/dead-letters/{action}", json=body)).json()
    assert dry["dry_run"]
    assert len(dead_letters.letters(broker)) == 4
    done = (await client.post(f"/dead-letters/{action}", json=body | {"dry_run": False})).json()
    for result in (dry, done):
        assert [one["letter_id"] for one in result["done"]] == stored[:2]
        assert (result["refused"], result["remaining"]) == ([], 1)
    assert {letter.letter_id for letter in dead_letters.letters(broker)} == {stored[2], other}
    assert _length(broker) == (2 if action == "replay" else 0)
    assert all((one["task_id"] is not None) == (action == "replay") for one in done["done"])


async def test_refused_letters_do_not_keep_a_bulk_call_from_the_others(client: httpx.AsyncClient, broker: Any) -> None:
    refused = [_bury(broker, argsrepr=dead_letters.HIDDEN) for _ in range(3)]
    stored = [_bury(broker) for _ in range(2)]
    result = (await client.post("/dead-letters/replay", json={"limit": 2, "dry_run": False})).json()
    assert [one["letter_id"] for one in result["done"]] == stored
    assert ([one["letter_id"] for one in result["refused"]], result["remaining"]) == (refused, 0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/dead-letters/replay", {"limit": 101}),
        ("/dead-letters/replay", {"eror": "x"}),
        ("/dead-letters/delete", {"error": ""}),
        ("/dead-letters/delete", {"alone": True}),
        ("/dead-letters/x-y/replay", None),
    ],
)
async def test_an_invalid_request_is_a_422(path: str, body: Any, client: httpx.AsyncClient) -> None:
    response = await client.post(path, json=body)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")


async def test_an_unknown_dead_letter_is_a_404(client: httpx.AsyncClient) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/replay")):
        response = await client.request(method, f"/dead-letters/{UNKNOWN}{path}")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


async def test_a_frozen_redis_is_a_503(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise QueueUnavailable("The task queue does not answer; try again later.")

    monkeypatch.setattr("app.features.tasks.platform.dead_letters.in_thread", refuse)
    calls: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("GET", f"/{UNKNOWN}", None),
        ("DELETE", f"/{UNKNOWN}", None),
        ("POST", f"/{UNKNOWN}/replay", None),
        ("POST", "/replay", {}),
        ("POST", "/delete", {}),
    ]
    for method, path, body in calls:
        response = await client.request(method, f"/dead-letters{path}", json=body)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


async def test_a_redis_that_refuses_a_replay_is_a_503_and_the_letter_stays(
    client: httpx.AsyncClient, broker: Any
) -> None:
    letter_id = _bury(broker)
    broker.config_set("maxmemory", 1)
    try:
        response = await client.post(f"/dead-letters/{letter_id}/replay")
    finally:
        broker.config_set("maxmemory", 0)
    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    assert dead_letters.find(broker, letter_id)
    assert _length(broker) == 0


async def test_who_is_no_operator_is_refused(app: FastAPI, client: httpx.AsyncClient) -> None:
    app.dependency_overrides[operator_or_owner] = lambda: TaskViewer("user-1")
    paths = [path for path in app.openapi()["paths"] if path.startswith(("/dead-letters", "/queues", "/workers"))]
    assert len(paths) == 9
    for path in paths:
        for method in app.openapi()["paths"][path]:
            url = path.replace("{letter_id}", UNKNOWN).replace("{name}", "default")
            response = await client.request(method, url, json={})
            assert (response.status_code, response.headers["content-type"]) == (403, "application/problem+json"), url
