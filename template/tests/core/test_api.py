"""The application as a whole."""

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Request

from app.api import health
from app.core.config.application import app_settings
from app.main import create_app


async def test_health_answers_without_any_dependency(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_lists_every_check(client: httpx.AsyncClient) -> None:
    answer = await client.get("/ready")
    # Neither worker nor beat runs in this test.
    expected = {name: "unavailable" if name in {"worker", "beat", "schedule"} else "ok" for name in health.checks}
    assert "database" in expected
    assert answer.json()["checks"] == expected
    assert answer.status_code == (503 if "worker" in expected else 200)


async def test_ready_skips_the_checks_that_the_caller_excludes(
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


async def test_a_failed_check_is_unavailable_without_details(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ConnectionError("db.internal:5432 refused")

    monkeypatch.setitem(health.checks, "database", broken)
    answer = await client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "unavailable"
    assert "internal" not in answer.text


def _client(app: FastAPI, peer: str, base_url: str = "http://test") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(peer, 4711)), base_url=base_url)


@pytest.mark.parametrize(
    ("peer", "seen"),
    [
        ("172.18.0.1", "203.0.113.7"),
        # Not a trusted proxy, so its header is ignored.
        ("198.51.100.9", "198.51.100.9"),
    ],
)
async def test_only_a_trusted_proxy_sets_the_client_address(
    peer: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_settings, "forwarded_allow_ips", ["127.0.0.1", "172.16.0.0/12"])
    app = create_app()

    @app.get("/who")
    async def who(request: Request) -> dict[str, str]:
        return {"host": request.client.host if request.client else "", "scheme": request.url.scheme}

    # A proxy appends to the header that the client sent.
    headers = {"X-Forwarded-For": "192.0.2.1, 203.0.113.7", "X-Forwarded-Proto": "https"}
    async with _client(app, peer) as client:
        answer = await client.get("/who", headers=headers)
    assert answer.json() == {"host": seen, "scheme": "https" if peer != seen else "http"}
    assert ("Strict-Transport-Security" in answer.headers) is (peer != seen)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
@pytest.mark.parametrize("enabled", [True, False])
async def test_the_api_docs_can_be_disabled(path: str, enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_settings, "docs_enabled", enabled)
    async with _client(create_app(), "127.0.0.1") as client:
        answer = await client.get(path)
    assert answer.status_code == (200 if enabled else 404)
    # The pages of /docs load scripts, so they have no such policy.
    assert ("Content-Security-Policy" in answer.headers) is (not enabled or path == "/openapi.json")


@pytest.mark.parametrize("path", ["/health", "/no-such-route"])
async def test_every_response_has_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Referrer-Policy"] == "no-referrer"
