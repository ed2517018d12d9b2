"""Streams of real tasks from a real server: progress, many clients, a Redis that restarts, a server that stops."""

import asyncio
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
import redis

from app.worker.broker import results_client
from app.worker.records import record_key
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_api, start_worker, wait_until
from tests.e2e.redis_faults import running_server

APP = "tests.e2e.platform.open_app:app"
WATCHERS = 1000


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process, and those that it starts, open as many files as they may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def api(many_files: None, broker: Any, tmp_path: Path) -> Iterator[tuple[Running, str]]:
    """Give the API and its address."""
    api, address = start_api(tmp_path / "api.log", APP, **FAST, CELERY_MAX_WATCHERS=str(WATCHERS))
    yield api, address
    api.stop()
    assert "Traceback" not in api.text(), api.text()


class Stream:
    """A stream that is read line by line."""

    def __init__(self, address: str, task_id: str) -> None:
        self._http = httpx.Client(timeout=40)
        self._response = self._http.stream("GET", f"{address}/tasks/{task_id}/events")
        self._lines = self._response.__enter__().iter_lines()

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Return the name and the data of each event."""
        name = ""
        for line in self._lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            if line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))

    def close(self) -> None:
        """Leave, as a client does that closes its page."""
        self._response.__exit__(None, None, None)
        self._http.close()


def _subscriptions(client: Any) -> list[int]:
    """Return the number of channels of each subscribed connection of the API."""
    return [int(one["sub"]) for one in client.client_list(_type="pubsub") if one["name"] == "app"]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_progress_of_each_kind_of_task_arrives(
    api: tuple[Running, str], tmp_path: Path, probe_task: Any, pool: str
) -> None:
    worker = start_worker(tmp_path / "worker.log", pool=pool, **FAST)
    try:
        for name in ("progress", "async_progress"):
            stream = Stream(api[1], probe_task(name).delay(10).id)
            events = list(stream.events())
            stream.close()
            assert events[-1][1]["state"] == "SUCCESS"
            assert events[-1][1]["progress"]["value"] == {"done": 10, "total": 10, "message": "working"}
            shown = [data["progress"]["value"]["done"] for kind, data in events if kind == "progress"]
            # Not each of the ten steps, which take two seconds.
            assert 2 <= len(shown) <= 8
            assert shown == sorted(shown)
    finally:
        worker.stop()
    assert "Traceback" not in worker.text()


def test_a_server_that_stops_ends_its_streams(api: tuple[Running, str], probe_task: Any) -> None:
    stream = Stream(api[1], probe_task("mark").delay(1).id)
    events = stream.events()
    assert next(events)[1]["state"] == "PENDING"
    api[0].process.terminate()
    # It waits for its streams, without a limit.
    assert list(events) == []
    stream.close()
    api[0].process.wait(20)


def test_a_stream_goes_on_after_a_restart_of_redis(broker: Any, tmp_path: Path, probe_task: Any) -> None:
    task_id = probe_task("mark").delay(1).id
    key = record_key(task_id)
    queued = results_client().get(key)
    with running_server(tmp_path) as (server, _):
        store = redis.Redis.from_url(server.url(2))
        store.set(key, queued)
        api, address = start_api(tmp_path / "api.log", APP, **FAST, CELERY_RESULT_BACKEND=server.url(2))
        try:
            stream = Stream(address, task_id)
            events = stream.events()
            assert next(events)[1]["state"] == "PENDING"
            wait_until(lambda: _subscriptions(store) == [1], 20, "the subscription")
            server.kill()
            wait_until(lambda: api.lines("watching_interrupted"), 20, "the connection to be lost")
            refused = httpx.get(f"{address}/tasks/{task_id}/events", timeout=20)
            assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
            server.start()
            store.set(key, queued.replace(b"PENDING", b"SUCCESS", 1))
            assert [data["state"] for _, data in events] == ["SUCCESS"]
            stream.close()
        finally:
            api.stop()
            store.close()
        assert "Traceback" not in api.text(), api.text()
        assert len(api.lines("watching_interrupted")) == 1


def test_a_thousand_watchers_share_one_subscription(
    api: tuple[Running, str], broker: Any, tmp_path: Path, probe_task: Any
) -> None:
    server, address = api
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] < WATCHERS + 200:
        pytest.skip("a process may not open enough files here")
    ids = [probe_task("mark").delay(number).id for number in range(10)]
    asyncio.run(_watch_many(address, ids, tmp_path))
    wait_until(lambda: _subscriptions(results_client()) == [], 20, "the subscription to end")
    assert httpx.get(f"{address}/health", timeout=20).status_code == 200
    assert not server.lines("watching_interrupted")


async def _watch_many(address: str, ids: list[str], folder: Path) -> None:
    opening = asyncio.Semaphore(50)
    parts = urlsplit(address)

    async def open_one(task_id: str) -> asyncio.StreamReader:
        async with opening:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(f"GET /tasks/{task_id}/events HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
            head = await reader.readuntil(b'"PENDING"')
            assert head.startswith(b"HTTP/1.1 200"), head
            writers.append(writer)
            return reader

    writers: list[asyncio.StreamWriter] = []
    async with asyncio.timeout(300):
        readers = await asyncio.gather(*(open_one(ids[number % len(ids)]) for number in range(WATCHERS)))
        await asyncio.to_thread(
            wait_until, lambda: _subscriptions(results_client()) == [len(ids)], 20, "one subscription"
        )
        async with httpx.AsyncClient(base_url=address, timeout=20) as http:
            assert (await http.get(f"/tasks/{ids[0]}/events")).status_code == 503
            assert (await http.get("/health")).status_code == 200
        worker = await asyncio.to_thread(start_worker, folder / "worker.log", **FAST)
        try:
            # Each stream to its end.
            rests = await asyncio.gather(*(reader.readuntil(b"0\r\n\r\n") for reader in readers))
        finally:
            await asyncio.to_thread(worker.stop)
        assert all(rest.count(b'"SUCCESS"') == 1 for rest in rests)
    for writer in writers:
        writer.close()
