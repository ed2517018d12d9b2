"""`enqueue` and `enqueue_many` on the event loop: the same messages as Celery's, few round trips, and refusals."""

import asyncio
import base64
import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import pytest
import redis
from celery import chain, group
from celery.signals import after_task_publish, before_task_publish
from kombu import Exchange, Queue
from pydantic import SecretStr
from redis.asyncio.connection import AbstractConnection as AsyncConnection

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker import bulk, history, job_limit, memory_limit, owners, pipeline, publish
from app.worker.broker import results_client
from app.worker.job_limit import TooManyJobs
from app.worker.publish import QueueFull, QueueTooLong, QueueUnavailable, enqueue, enqueue_many, status_of
from app.worker.serializer import InvalidArguments
from tests import ROOT
from tests.worker.test_jobs import _running

pytestmark = pytest.mark.anyio


@pytest.fixture(name="broker")
def broker_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the Redis client of the broker, whose database is empty before and after the test."""
    monkeypatch.setattr(memory_limit._memory, "checked_at", float("-inf"))
    monkeypatch.setattr(memory_limit._memory, "full", None)
    with redis.Redis.from_url(celery_settings.broker_url.get_secret_value(), decode_responses=True) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture(name="trips")
def trips_fixture(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give a list that gets an entry for each round trip of `async def` code."""
    made: list[int] = []
    send = AsyncConnection.send_packed_command

    async def counted(self: AsyncConnection, *args: Any, **kwargs: Any) -> None:
        made.append(1)
        await send(self, *args, **kwargs)

    monkeypatch.setattr(AsyncConnection, "send_packed_command", counted)
    return made


def _messages(broker: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the queued messages by the key of their queue, without what differs between two messages of the same call."""
    found = {}
    for key in broker.keys("*"):
        if broker.type(key) != "list":
            continue
        found[key] = [json.loads(text) for text in reversed(broker.lrange(key, 0, -1))]
        for message in found[key]:
            for unique in ("id", "root_id", "published_at", "origin"):
                message["headers"].pop(unique, None)
            for when in ("eta", "expires"):
                # Of a countdown, within a second or two.
                if message["headers"].get(when):
                    message["headers"][when] = message["headers"][when][:15]
            for unique in ("correlation_id", "reply_to", "delivery_tag"):
                assert message["properties"].pop(unique)
            message["body"] = base64.b64decode(message["body"])
    return found


async def _refused(call: Any) -> None:
    with pytest.raises(QueueUnavailable):
        await call


@contextlib.contextmanager
def _second_server(monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(celery_settings, "result_backend", SecretStr(url))
        yield


@contextlib.contextmanager
def _silent_server() -> Iterator[str]:
    """Give the URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/2"


OPTIONS: list[dict[str, Any]] = [
    {},
    {"queue": "long", "priority": 5},
    {"priority": 9, "countdown": 600},
    {"eta": datetime(2040, 1, 1, tzinfo=UTC), "expires": 1200},
    {"headers": {"tenant": "a"}, "shadow": "other", "ignore_result": True},
    {"link": process_task.si({"b": 2}), "link_error": process_task.si({"c": 3}), "retries": 2},
    {"compression": "zlib", "time_limit": 40},
    {"argsrepr": "(…)", "reply_to": "x", "retry": False, "delivery_mode": "transient"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "none")
async def test_the_message_is_the_one_that_celery_publishes(options: dict[str, Any], broker: Any) -> None:
    process_task.apply_async(({"a": "ä"},), **options)
    expected = _messages(broker)
    broker.flushdb()
    await enqueue(process_task.s({"a": "ä"}).set(**options))
    assert len(expected) == 1
    assert _messages(broker) == expected


async def test_a_task_is_queued_in_one_round_trip_and_no_thread(
    broker: Any, trips: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(process_task.s({}))
    monkeypatch.setattr(publish, "in_thread", None)
    trips.clear()
    result = await enqueue(process_task.s({}))
    assert len(trips) == 1
    monkeypatch.undo()
    status = await status_of(result.id)
    assert status is not None
    assert status.status == "PENDING"
    assert broker.llen("high") == 2


async def test_tasks_of_requests_at_the_same_time_share_round_trips(broker: Any, trips: list[int]) -> None:
    await enqueue(process_task.s({}))
    trips.clear()
    await asyncio.gather(*(enqueue(process_task.s({})) for _ in range(50)))
    assert len(trips) <= 3
    assert broker.llen("high") == 51


async def test_a_task_is_reported_as_published_when_redis_has_it(broker: Any) -> None:
    seen: list[tuple[str, int, str]] = []

    def queued() -> int:
        return int(broker.llen("high")) if broker.type("high") == "list" else 0

    def before(headers: dict[str, Any], **_: object) -> None:
        headers["added"] = "yes"
        seen.append(("before", queued(), headers["id"]))

    def after(headers: dict[str, Any], **_: object) -> None:
        seen.append(("after", queued(), headers["id"]))

    before_task_publish.connect(before)
    after_task_publish.connect(after)
    try:
        one = (await enqueue(process_task.s({}))).id
        two = (await enqueue_many([process_task.s({})]))[0].id
        assert seen == [("before", 0, one), ("after", 1, one), ("before", 1, two), ("after", 2, two)]
        assert {message["headers"]["added"] for message in _messages(broker)["high"]} == {"yes"}
        seen.clear()
        broker.delete("high")
        broker.set("high", "no list")
        await _refused(enqueue(process_task.s({})))
        await _refused(enqueue_many([process_task.s({})]))
        assert [name for name, *_ in seen] == ["before", "before"]
    finally:
        before_task_publish.disconnect(before)
        after_task_publish.disconnect(after)


async def test_a_queue_of_a_named_exchange_gets_its_task(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Queue("news", Exchange("news", type="topic"), routing_key="news.#")
    monkeypatch.setitem(celery_app.amqp.queues, "news", topic)
    await enqueue(process_task.s({}).set(queue="news", exchange="news", routing_key="news.local"))
    assert broker.llen("news") == 1
    with pytest.raises(ValueError, match="exchange 'news'"):
        await enqueue_many([process_task.s({}).set(queue="news", exchange="news", routing_key="news.local")])
    assert broker.llen("news") == 1


async def test_large_arguments_are_not_encoded_on_the_event_loop(broker: Any) -> None:
    threads = set()

    def note(**_: object) -> None:
        threads.add(threading.current_thread())

    before_task_publish.connect(note)
    try:
        for large in ({"text": "x" * 100_000}, {"numbers": list(range(5000))}, {str(key): 0 for key in range(2000)}):
            await enqueue(process_task.s(large))
        assert threading.current_thread() not in threads
        await enqueue(process_task.s({"small": 1}))
        assert threading.current_thread() in threads
    finally:
        before_task_publish.disconnect(note)
    assert broker.llen("high") == 4


@pytest.fixture(name="slow_trips")
async def slow_trips_fixture(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Give two events: the first is set when a round trip starts, and each waits for the second."""
    started, may_go = asyncio.Event(), asyncio.Event()
    await enqueue(process_task.s({}))
    trip = pipeline._Connection._trip

    async def slow(self: Any, calls: Any) -> Any:
        started.set()
        await may_go.wait()
        return await trip(self, calls)

    monkeypatch.setattr(pipeline._Connection, "_trip", slow)
    return started, may_go


async def test_a_caller_that_gives_up_disturbs_no_other(
    broker: Any, slow_trips: tuple[asyncio.Event, asyncio.Event]
) -> None:
    started, may_go = slow_trips
    together = [asyncio.create_task(enqueue(process_task.s({}))) for _ in range(2)]
    await started.wait()
    # Not sent yet: it waits for the round trip of the others.
    later = [asyncio.create_task(enqueue(process_task.s({}))) for _ in range(2)]
    await asyncio.sleep(0)
    together[0].cancel()
    later[0].cancel()
    await asyncio.sleep(0)
    may_go.set()
    answers: list[Any] = await asyncio.gather(*together, *later, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False] * 2
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    queued = {json.loads(text)["headers"]["id"] for text in broker.lrange("high", 0, -1)}
    assert {answers[1].id, answers[3].id} <= queued
    # The one of the fixture, and the one that was given up while it was sent.
    assert len(queued) == 4


async def test_a_connection_that_redis_closed_is_opened_again(broker: Any) -> None:
    await enqueue(process_task.s({}))
    broker.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await enqueue(process_task.s({}))
    assert broker.llen("high") == 2


async def test_a_connection_is_kept_alive_while_nothing_is_sent() -> None:
    connection = pipeline.results_connection()
    await connection.connect()
    used = connection._writer.get_extra_info("socket")
    assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    await connection.disconnect()


def test_each_event_loop_and_each_fork_has_connections_of_its_own(broker: Any) -> None:
    code = """
import asyncio, os
from app.tasks.process_task import process_task
from app.worker.publish import enqueue

async def main():
    await enqueue(process_task.s({}))
    child = os.fork()
    if not child:
        asyncio.events._set_running_loop(None)
        asyncio.run(enqueue(process_task.s({})))
        os._exit(0)
    await enqueue(process_task.s({}))
    _, code = await asyncio.to_thread(os.waitpid, child, 0)
    assert code == 0
    await enqueue(process_task.s({}))

asyncio.run(main())
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        cwd=ROOT,
        env=dict(os.environ),
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "ResourceWarning" not in done.stderr
    assert broker.llen("high") == 8


# Another name is another server to the application.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_record_is_stored_before_the_task_can_run(host: str, broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = celery_settings.result_backend.get_secret_value()
    assert "127.0.0.1" in url
    with _second_server(monkeypatch, url.replace("127.0.0.1", host)), broker.monitor() as monitor:
        asyncio.run(enqueue(process_task.s({})))
        commands: list[tuple[int, str]] = []
        while not commands or commands[-1][1] != "LPUSH":
            entry = monitor.next_command()
            commands.append((entry["db"], entry["command"].split()[0]))
    # The state and the record are stored by one script.
    written = [one for one in commands if one[1] in {"SET", "LPUSH"}]
    assert written == [(2, "SET"), (2, "SET"), (1, "LPUSH")]


def test_a_frozen_result_store_does_not_keep_tasks_from_being_queued(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _silent_server() as url, _second_server(monkeypatch, url):
        asyncio.run(enqueue(process_task.s({})))
    assert broker.llen("high") == 1


def test_a_frozen_broker_is_unavailable_in_time(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_settings, "publish_timeout", 0.5)
    with _silent_server() as url:
        monkeypatch.setattr(celery_settings, "broker_url", SecretStr(url))
        for call in (lambda: enqueue(process_task.s({})), lambda: enqueue_many([process_task.s({})])):
            asyncio.run(asyncio.wait_for(_refused(call()), 1.5))


@pytest.mark.parametrize(("owner", "error"), [("\ud800", UnicodeEncodeError), (uuid4(), TypeError)])
async def test_an_owner_that_cannot_be_sent_is_an_error_of_its_caller_alone(
    owner: Any, error: type[Exception], broker: Any
) -> None:
    await enqueue(process_task.s({}))
    with owners.owned_by(owner):
        wrong = asyncio.create_task(enqueue(process_task.s({})))
    right = asyncio.create_task(enqueue(process_task.s({})))
    answers: list[Any] = await asyncio.gather(wrong, right, return_exceptions=True)
    assert isinstance(answers[0], error)
    assert not isinstance(answers[1], BaseException)


# --- enqueue_many ---


async def test_a_thousand_tasks_take_few_round_trips(
    broker: Any, trips: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 1000)
    await enqueue(process_task.s({}))
    trips.clear()
    results = await enqueue_many((process_task.s({"number": number}) for number in range(1000)), "many-owner")
    assert len(trips) <= 10
    assert broker.llen("high\x06\x163") == 1000
    queued = [json.loads(text)["headers"]["id"] for text in reversed(broker.lrange("high\x06\x163", 0, -1))]
    assert queued == [result.id for result in results]
    for result in (results[0], results[-1]):
        status = await status_of(result.id)
        assert status is not None
        assert (status.status, status.owner) == ("PENDING", "many-owner")
    await asyncio.sleep(0)


async def test_while_a_thousand_tasks_are_built_other_requests_run(broker: Any) -> None:
    longest, done = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        while not done.is_set():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    watcher = asyncio.create_task(watch())
    start = time.thread_time()
    # A collection takes as long as all objects of the test process need.
    gc.disable()
    try:
        await enqueue_many(process_task.s({}) for _ in range(1000))
    finally:
        gc.enable()
    took = time.thread_time() - start
    done.set()
    await watcher
    assert longest < took / 4, (longest, took)


async def test_a_task_that_a_full_queue_refuses_leaves_no_record_and_no_job(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "max_queue_depth", 1)
    await enqueue(process_task.s({}))
    with pytest.raises(QueueTooLong):
        await enqueue(process_task.s({}).set(task_id="one"), "refused")
    with pytest.raises(QueueTooLong):
        await enqueue_many([process_task.s({}).set(task_id="many")], "refused")
    for task_id in ("one", "many"):
        assert history.read(task_id) is None
        assert await status_of(task_id) is None
    assert results_client().zcard(job_limit.jobs_key("refused")) == 0


async def test_a_refusal_forgets_nothing_of_a_task_that_waits_under_the_same_id(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = f"owner-{os.urandom(8).hex()}"
    ids = [f"{owner}-{number}" for number in range(2)]
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 3)
    await enqueue_many([process_task.s({}).set(task_id=task_id) for task_id in ids], owner)
    monkeypatch.setattr(celery_settings, "max_queue_depth", 1)
    # The caller did not get the answer.
    with pytest.raises(QueueTooLong):
        await enqueue_many([process_task.s({}).set(task_id=task_id) for task_id in [*ids, f"{owner}-2"]], owner)
    with pytest.raises(QueueTooLong):
        await enqueue(process_task.s({}).set(task_id=ids[0]), owner)
    for task_id in ids:
        record, status = history.read(task_id), await status_of(task_id)
        assert record
        assert status
        assert (record.state, status.status, status.owner) == ("PENDING", "PENDING", owner)
    assert await status_of(f"{owner}-2") is None
    assert sorted(results_client().zrange(job_limit.jobs_key(owner), 0, -1)) == [task_id.encode() for task_id in ids]


async def test_many_tasks_are_not_queued_if_one_of_their_queues_is_no_list(broker: Any) -> None:
    broker.set("long", "no list")
    with pytest.raises(QueueUnavailable):
        await enqueue_many([process_task.s({}), process_task.s({}).set(queue="long")])
    assert broker.llen("high") == 0


async def test_many_tasks_are_queued_or_none(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_settings, "publish_memory_limit", 1)
    both = [process_task.s({}), process_task.s({}).set(queue="long")]
    with pytest.raises(InvalidArguments):
        await enqueue_many([*both, process_task.s({"__type__": "x"})])
    memory = broker.info("memory")["used_memory"]
    broker.config_set("maxmemory", memory // 2)
    try:
        await _refused(enqueue_many(both))
    finally:
        broker.config_set("maxmemory", 0)
    assert broker.dbsize() == 0
    assert len(await enqueue_many(both)) == 2
    assert (broker.llen("high"), broker.llen("long")) == (1, 1)


async def test_the_limit_on_jobs_admits_many_or_none(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 5)
    owner = f"owner-{os.urandom(8).hex()}"
    await enqueue(process_task.s({}), owner)
    await enqueue_many([process_task.s({})] * 3, owner)
    with pytest.raises(TooManyJobs):
        await enqueue_many([process_task.s({})] * 2, owner)
    assert broker.llen("high\x06\x163") == 4
    await enqueue(process_task.s({}), owner)


async def test_many_jobs_that_were_not_queued_are_not_counted(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 2)
    owner = f"owner-{os.urandom(8).hex()}"
    broker.set("high\x06\x163", "no list")
    for _ in range(3):
        await _refused(enqueue_many([process_task.s({})] * 2, owner))
    broker.delete("high\x06\x163")
    assert len(await enqueue_many([process_task.s({})] * 2, owner)) == 2


async def test_many_is_bounded_and_for_tasks(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step: Any = process_task.si({})
    assert await enqueue_many([]) == []
    with pytest.raises(ValueError, match="1001 tasks"):
        await enqueue_many([step] * 1001)
    for workflow in (chain(step, step), group(step, step)):
        with pytest.raises(ValueError, match="use enqueue for a chain"):
            await enqueue_many([workflow])
    with pytest.raises(InvalidArguments, match="too large"):
        await enqueue_many([process_task.s({"text": "x" * 100_000})])
    monkeypatch.setattr(bulk, "MAX_MANY_BYTES", 100)
    with pytest.raises(InvalidArguments, match="more than 100 bytes"):
        await enqueue_many([step])
    assert broker.dbsize() == 0


# --- a full Redis ---


@contextlib.contextmanager
def _nearly_full(broker: Any, **more: object) -> Iterator[None]:
    before = {name: broker.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}
    with redis.Redis.from_url(celery_settings.result_backend.get_secret_value()) as results:
        # So large that the connections and messages of a test do not fill the rest.
        results.setrange("filler", 50_000_000, "x")
        try:
            settings = {"maxmemory": int(broker.info("memory")["used_memory"] / 0.94), **more}
            for name, value in settings.items():
                broker.config_set(name, value)
            yield
        finally:
            for name, value in before.items():
                broker.config_set(name, value)
            results.delete("filler")


async def test_a_nearly_full_redis_refuses_requests_but_no_task(broker: Any) -> None:
    with _nearly_full(broker):
        for call in (enqueue(process_task.s({})), enqueue(chain(process_task.si({}), process_task.si({})))):
            with pytest.raises(QueueFull, match=r"is full: the broker uses 9\d% of its memory limit"):
                await call
        with pytest.raises(QueueFull):
            await enqueue_many([process_task.s({})])
        assert broker.dbsize() == 0
        with _running(process_task):
            await enqueue(process_task.s({}))
            await enqueue_many([process_task.s({})])
        # beat, retries, and the next steps of workflows.
        process_task.delay({})
        assert broker.llen("high") == 3


async def test_a_nearly_full_redis_is_a_503(broker: Any, client: httpx.AsyncClient) -> None:
    with _nearly_full(broker):
        answer = await client.post("/process", json={})
    assert answer.status_code == 503
    assert "full" in answer.json()["detail"]
    assert answer.headers["retry-after"]


async def test_tasks_are_queued_again_a_second_after_there_is_room(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with _nearly_full(broker):
        await _refused(enqueue(process_task.s({})))
    await _refused(enqueue(process_task.s({})))
    now += 1.1
    await enqueue(process_task.s({}))


async def test_the_memory_is_read_once_a_second(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> int:
        return int(broker.info("commandstats").get("cmdstat_info", {"calls": 0})["calls"])

    monkeypatch.setattr(memory_limit, "_INTERVAL", 3600)
    before = asked()
    await asyncio.gather(*(enqueue(process_task.s({})) for _ in range(20)))
    assert asked() - before == 2, "one, and that of asked()"


async def test_the_share_is_a_setting(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limit, "_INTERVAL", 0)
    with _nearly_full(broker):
        monkeypatch.setattr(celery_settings, "publish_memory_limit", 0.99)
        await enqueue(process_task.s({}))
        monkeypatch.setattr(celery_settings, "publish_memory_limit", 0.5)
        await _refused(enqueue(process_task.s({})))
        monkeypatch.setattr(celery_settings, "publish_memory_limit", 1)
        await enqueue(process_task.s({}))


async def test_a_redis_that_evicts_is_never_full(broker: Any) -> None:
    with _nearly_full(broker, **{"maxmemory-policy": "volatile-ttl"}):
        await enqueue(process_task.s({}))


async def test_a_user_who_may_not_read_the_memory_may_queue(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(commands: Any) -> Any:
        return type(commands)(broker=[redis.exceptions.NoPermissionError("INFO")])

    with _nearly_full(broker), monkeypatch.context() as patched:
        patched.setattr(memory_limit, "execute", forbidden)
        await enqueue(process_task.s({}))


# --- kombu ---


async def test_a_channel_that_kombu_closed_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: Any = None
    workflow = chain(process_task.si({}), process_task.si({}))
    monkeypatch.setattr(type(workflow), "apply_async", lambda *_, **__: closed.client)
    await _refused(enqueue(workflow))
    monkeypatch.setattr(type(workflow), "apply_async", lambda *_, **__: closed.name)
    with pytest.raises(AttributeError):
        await enqueue(workflow)
