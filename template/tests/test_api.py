"""The application as a whole."""

import httpx
import pytest

from app.api import health


async def test_health_needs_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_names_each_part(client: httpx.AsyncClient) -> None:
    answer = await client.get("/ready")
    # Neither worker nor beat runs in this test.
    expected = {name: "unavailable" if name in {"worker", "beat", "schedule"} else "ok" for name in health.checks}
    assert "database" in expected
    assert answer.json()["checks"] == expected
    assert answer.status_code == (503 if "worker" in expected else 200)


async def test_ready_leaves_out_what_the_caller_does_without(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ConnectionError

    for name in set(health.checks) - {"database"}:
        monkeypatch.delitem(health.checks, name)
    monkeypatch.setitem(health.checks, "worker", broken)
    monkeypatch.setitem(health.checks, "beat", broken)
    answer = await client.get("/ready?without=worker&without=beat")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": {"database": "ok"}})
    assert (await client.get("/ready?without=other")).status_code == 503


async def test_a_broken_check_is_unavailable_and_tells_no_details(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ConnectionError("db.internal:5432 refused")

    monkeypatch.setitem(health.checks, "database", broken)
    answer = await client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "unavailable"
    assert "internal" not in answer.text
