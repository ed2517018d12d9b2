"""GET /queues and /workers for an operator, without workers; tests/e2e/platform/test_paused_queues.py has them."""

import json
import time
from typing import Any

import httpx2 as httpx
import pytest

from app.tasks.process_task import process_task
from app.worker import messages, paused_queues
from app.worker.broker import QueueUnavailable
from app.worker.publish import enqueue
from app.worker.worker_reports import _SET, _key

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("broker")]


async def _queue(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    response = await client.get("/queues")
    assert response.status_code == 200, response.text
    return next(dict(queue) for queue in response.json()["queues"] if queue["name"] == name)


def _report(broker: Any, name: str, **fields: Any) -> None:
    """Let a worker be alive that reports this."""
    broker.zadd("workers", {name: broker.time()[0]})
    report = {"pid": 1, "pool": "prefork", "concurrency": 2, "consumes": [], "paused": [], "running": {}, "taken": {}}
    _SET(broker, [_key(name)], [json.dumps(report | fields), 60])


async def test_a_queue_has_what_waits_in_all_priorities_and_since_when(client: httpx.AsyncClient) -> None:
    assert await _queue(client, "high") == {
        "name": "high",
        "waiting": 0,
        "waiting_for_rules": 0,
        "oldest_age": None,
        "running": 0,
        "taken": 0,
        "paused": False,
        "paused_since": None,
        "workers": 0,
        "workers_paused": 0,
    }
    await enqueue(process_task.s({}))
    await enqueue(process_task.s({"published_at": '"published_at": 1'}).set(priority=9))
    shown = await _queue(client, "high")
    assert shown["waiting"] == 2
    assert 0 <= shown["oldest_age"] < 10
    assert (await _queue(client, "default"))["waiting"] == 0


async def test_the_oldest_message_of_all_lists_counts(client: httpx.AsyncClient, broker: Any) -> None:
    await enqueue(process_task.s({}))
    older = json.dumps({"body": "", "headers": {"published_at": time.time() - 100}, "properties": {}})
    broker.lpush("high" + messages.keys().ending(9), older)
    assert 99 < (await _queue(client, "high"))["oldest_age"] < 110
    # A message of another program has no such header.
    broker.lpush("long", "no JSON")
    shown = await _queue(client, "long")
    assert (shown["waiting"], shown["oldest_age"]) == (1, None)


async def test_messages_that_wait_for_a_rule_are_counted(client: httpx.AsyncClient, broker: Any) -> None:
    message = json.dumps({"headers": {"published_at": time.time() - 50}})
    # As `flow_scripts` stores it.
    broker.eval(
        "redis.call('LPUSH', 'flow:c:x:waiting', cmsgpack.pack({'1', 'long', 'long', ARGV[1], '', {}}))"
        "redis.call('ZADD', 'flow:waiting', 1, 'flow:c:x') redis.call('HSET', 'flow:depths', 'long', 1)",
        0,
        message,
    )
    shown = await _queue(client, "long")
    assert (shown["waiting"], shown["waiting_for_rules"]) == (0, 1)
    assert 49 < shown["oldest_age"] < 60


async def test_a_key_of_another_type_hides_no_queue(client: httpx.AsyncClient, broker: Any) -> None:
    broker.set("long", "no list")
    assert (await _queue(client, "long"))["waiting"] == 0


async def test_a_pause_is_stored_until_it_is_resumed(client: httpx.AsyncClient, broker: Any) -> None:
    paused = (await client.post("/queues/long/pause")).json()
    assert (paused["name"], paused["paused"], paused["workers"]) == ("long", True, 0)
    assert (await client.post("/queues/long/pause")).json()["paused_since"] == paused["paused_since"]
    assert set(paused_queues.read(broker)) == {"long"}
    assert not (await _queue(client, "high"))["paused"]
    assert not (await client.post("/queues/long/resume")).json()["paused"]
    assert (await client.post("/queues/long/resume")).status_code == 200
    assert paused_queues.read(broker) == {}


async def test_a_queue_says_how_many_of_its_workers_have_applied_the_pause(
    client: httpx.AsyncClient, broker: Any
) -> None:
    _report(broker, "one@host", consumes=["high"], paused=["long"], running={"high": 2, "long": 1}, taken={"long": 3})
    _report(broker, "two@host", consumes=["high", "long"], running={"high": 1})
    broker.zadd("workers", {"starting@host": broker.time()[0], "dead@host": broker.time()[0] - 3600})
    shown = await _queue(client, "long")
    assert (shown["workers"], shown["workers_paused"], shown["running"], shown["taken"]) == (2, 1, 1, 3)
    assert (await _queue(client, "high"))["running"] == 3
    assert (await client.get("/queues")).json()["workers_without_report"] == 1


async def test_a_worker_that_does_not_answer_is_shown_with_its_report(client: httpx.AsyncClient, broker: Any) -> None:
    _report(broker, "one@host", consumes=["high"], running={"high": 2})
    broker.zadd("workers", {"starting@host": broker.time()[0], "dead@host": broker.time()[0] - 3600})
    response = await client.get("/workers")
    assert response.status_code == 200, response.text
    one, starting = response.json()["workers"]
    assert (one["name"], one["pool"], one["queues"], one["running"]) == ("one@host", "prefork", ["high"], 2)
    assert (starting["name"], starting["pool"], starting["running"]) == ("starting@host", None, None)
    assert one["tasks"] is starting["tasks"] is None


async def test_an_undeclared_queue_is_a_404_unless_it_is_paused(client: httpx.AsyncClient, broker: Any) -> None:
    for action in ("pause", "resume"):
        response = await client.post(f"/queues/gone/{action}")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    paused_queues.pause(broker, "gone")
    assert (await _queue(client, "gone"))["paused"]
    assert not (await client.post("/queues/gone/resume")).json()["paused"]


async def test_a_frozen_redis_is_a_503(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise QueueUnavailable("The task queue does not answer; try again later.")

    monkeypatch.setattr("app.features.tasks.platform.queues.in_thread", refuse)
    for method, path in (("GET", "/queues"), ("GET", "/workers"), ("POST", "/queues/long/pause")):
        response = await client.request(method, path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert response.headers["content-type"] == "application/problem+json"
