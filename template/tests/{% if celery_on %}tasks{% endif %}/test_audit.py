"""The audit checks of the broker, the result store and the workers."""

import pytest

from app.core.config.celery import celery_settings, worker_settings
from app.core.config.redis import redis_settings
from app.core.redis import cache
from app.features.tasks import audit
from app.worker import liveness
from app.worker.broker import broker_client


async def services() -> dict[str, list[tuple[str, str]]]:
    """Return the states and texts of the findings by subject."""
    found: dict[str, list[tuple[str, str]]] = {}
    async for finding in audit.broker_findings():
        found.setdefault(finding.what, []).append((finding.state, finding.text))
    return found


async def test_redis_must_not_lose_data() -> None:
    redis = cache.sync.client
    before = {name: str(redis.config_get(name)[name]) for name in ("maxmemory-policy", "appendonly")}
    try:
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("appendonly", "yes")
        lines = await services()
        expected = [("ok", "reachable"), ("ok", "keeps its data at a restart"), ("ok", "has all permissions")]
        assert lines["redis (broker)"] == lines["redis (results)"] == expected
        redis.config_set("maxmemory-policy", "allkeys-lru")
        assert "maxmemory-policy is allkeys-lru" in (await services())["redis (broker)"][1][1]
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("appendonly", "no")
        state, line = (await services())["redis (results)"][1]
        assert (state, "appendonly is off" in line) == ("problem", True)
    finally:
        for name, value in before.items():
            redis.config_set(name, value)


@pytest.mark.parametrize(("pool", "state"), [("prefork", "ok"), ("threads", "ok"), ("solo", "problem")])
async def test_a_pool_without_time_limits_is_a_problem(pool: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_settings, "pool", pool)
    found = [finding async for finding in audit.worker_findings()]
    assert [(finding.what, finding.state) for finding in found] == [("workers", state)]
    assert f"WORKER_POOL is {pool}" in found[0].text


async def test_cache_queues_and_results_need_different_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await services())["redis databases"][0][0] == "ok"
    monkeypatch.setattr(redis_settings, "connection_url", celery_settings.broker_url)
    state, line = (await services())["redis databases"][0]
    assert (state, line.partition(" use")[0]) == ("problem", "REDIS_CONNECTION_URL and CELERY_BROKER_URL")


@pytest.mark.parametrize("name", ["worker", "beat"])
async def test_a_missing_heartbeat_is_a_problem(name: str) -> None:
    with broker_client() as client:
        client.delete(f"alive:{name}")
        finding = await audit.liveness_finding(name)
        assert (finding.state, finding.text) == ("problem", f"no heartbeat: {name}. Check that it is running.")
        liveness.send_heartbeat(name, expires=30)
        finding = await audit.liveness_finding(name)
        client.delete(f"alive:{name}")
    assert (finding.state, finding.text) == ("ok", "has a heartbeat")
