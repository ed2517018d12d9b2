"""The cache, async and sync."""

import asyncio
import multiprocessing
import re
import threading
from typing import Any

import pytest
import redis

from app.core.config.redis import redis_settings
from app.core.redis import Cache, SyncCache, cache
from tests import ROOT


async def test_values_come_back_as_they_went() -> None:
    value = {"a": [1, 2.5, None, True], "ü": "ß"}
    assert await cache.get("none") is None
    assert await cache.get("none", "default") == "default"
    await cache.set("x", value)
    assert await cache.get("x") == value
    assert cache.sync.get("x") == value
    cache.sync.set("y", 0)
    assert await cache.get("y", "default") == 0


async def test_values_expire() -> None:
    client = await cache.connected()
    await cache.set("x", 1)
    assert 0 < await client.ttl(cache.key("x")) <= redis_settings.default_ttl
    await cache.set("x", 1, ttl=1.5)
    assert 0 < await client.pttl(cache.key("x")) <= 1500
    for ttl in (0, -1):
        with pytest.raises(ValueError, match="ttl"):
            await cache.set("x", 1, ttl=ttl)
        with pytest.raises(ValueError, match="ttl"):
            cache.sync.set("x", 1, ttl=ttl)


async def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        await cache.set("x", object())


async def test_delete_counts() -> None:
    await cache.set("x", 1)
    await cache.set("y", 1)
    assert await cache.delete("x", "y", "z") == 2
    assert await cache.delete() == 0
    assert cache.sync.delete() == 0


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_delete_pattern_forgets_all_that_match_and_nothing_else(kind: str) -> None:
    client = await cache.connected()
    await client.set("other:user:1", "not ours")
    async with client.pipeline(transaction=False) as pipe:
        for number in range(1234):
            pipe.set(cache.key(f"user:1:{number}"), "1")
        await pipe.execute()
    await cache.set("user:2:0", 1)
    pattern = "user:1:*"
    deleted = await cache.delete_pattern(pattern) if kind == "async" else cache.sync.delete_pattern(pattern)
    assert deleted == 1234
    assert await cache.get("user:2:0") == 1
    assert await cache.delete_pattern("*") == 1
    assert await client.delete("other:user:1") == 1


async def test_a_prefix_with_special_characters_is_taken_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await cache.connected()
    await client.set("axb:1", "not ours")
    monkeypatch.setattr(redis_settings, "key_prefix", "a?b")
    await cache.set("1", 1)
    assert await cache.delete_pattern("*") == 1
    assert await client.delete("axb:1") == 1


def test_keys_have_the_applications_prefix() -> None:
    cache.sync.set("x", 1)
    assert cache.sync.client.get(f"{redis_settings.key_prefix}:x") == b"1"


def test_hundreds_of_event_loops_leave_no_connection_behind() -> None:
    async def use(number: int) -> int:
        await cache.set("n", number)
        return int(await cache.get("n"))

    before = cache.sync.client.info("clients")["connected_clients"]
    assert [asyncio.run(use(number)) for number in range(200)] == list(range(200))
    assert cache.sync.client.info("clients")["connected_clients"] <= before + 1


def test_several_threads_at_once() -> None:
    results: list[Any] = []

    def run(number: int) -> None:
        async def use() -> Any:
            await cache.set(f"t{number}", number)
            return await cache.get(f"t{number}")

        results.append((asyncio.run(use()), cache.sync.get(f"t{number}")))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [(number, number) for number in range(8)]


def _in_fork(queue: Any, parents_client: int) -> None:
    queue.put((cache.sync.get("x"), id(cache.sync.client) != parents_client))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_gets_connections_of_its_own() -> None:
    cache.sync.set("x", 7)
    parents_client = cache.sync.client
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_fork, args=(queue, id(parents_client)))
    child.start()
    assert queue.get(timeout=30) == (7, True)
    child.join(30)
    assert cache.sync.get("x") == 7


async def test_a_redis_that_is_away_fails_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_settings, "connection_url", type(redis_settings.connection_url)("redis://127.0.0.1:1/0"))
    elsewhere = Cache()
    async with asyncio.timeout(3):
        with pytest.raises(redis.ConnectionError):
            await elsewhere.ping()
    with pytest.raises(redis.ConnectionError):
        SyncCache().ping()
    await elsewhere.close()


async def test_close_can_be_followed_by_use() -> None:
    await cache.ping()
    await cache.close()
    await cache.close()
    await cache.ping()
    cache.sync.ping()


def _recipes() -> dict[str, Any]:
    page = (ROOT / "docs" / "redis-caching.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(code, "docs/redis-caching.md", "exec"), names)
    return names


async def test_recipe_response_cache() -> None:
    calls: list[int] = []

    async def load(number: int) -> dict[str, int]:
        calls.append(number)
        return {"number": number}

    cached = _recipes()["cached"](ttl=60)(load)
    assert [await cached(1), await cached(1), await cached(2)] == [{"number": 1}, {"number": 1}, {"number": 2}]
    assert calls == [1, 2]


async def test_recipe_rate_limit() -> None:
    allowed = _recipes()["allowed"]
    assert [await allowed("ada", limit=2, window=60) for _ in range(4)] == [True, True, False, False]
    assert await allowed("bob", limit=2, window=60)


async def test_recipe_lock() -> None:
    exclusively = _recipes()["exclusively"]
    inside = 0
    most = 0

    async def work() -> None:
        nonlocal inside, most
        async with exclusively("report", wait=10):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(5)))
    assert most == 1


async def test_recipe_invalidation() -> None:
    names = _recipes()
    await cache.set("user:1:profile", 1)
    await cache.set("user:2:profile", 1)
    await names["user_changed"](1)
    assert await cache.get("user:1:profile") is None
    assert await cache.get("user:2:profile") == 1


async def test_recipe_stampede_guard() -> None:
    calls = 0

    async def slow() -> list[int]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.1)
        return [1]

    once = _recipes()["once"]
    results = await asyncio.gather(*(once("slow", slow, ttl=60) for _ in range(20)))
    assert results == [[1]] * 20
    assert calls == 1
    assert cache.sync.get("slow") == [1]
