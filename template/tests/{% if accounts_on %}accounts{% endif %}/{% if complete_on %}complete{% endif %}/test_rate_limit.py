"""Rate limits in Redis."""

import asyncio
import time

import httpx2 as httpx
import pytest
from fastapi import Request, Response
from redis.exceptions import RedisError

from app.core.config.application import app_settings
from app.core.redis import cache
from app.features.accounts.complete import constant_time, known_device, limits
from app.features.accounts.complete import login_routes as logins
from app.features.accounts.complete import routes as accounts
from app.features.accounts.complete.rate_limit import Limit, RateLimited, Slowdown
from tests.accounts.complete.people import ADA, OTHER, add_user, bearer, client_at, code_for, log_in

pytestmark = pytest.mark.anyio


async def _count(limit: Limit, who: str, times: int) -> int:
    results = await asyncio.gather(*(limit.count(who) for _ in range(times)), return_exceptions=True)
    for result in results:
        assert result is None or isinstance(result, RateLimited)
    return results.count(None)


async def test_each_caller_has_a_separate_limit() -> None:
    limit = Limit("test", 3, 60)
    assert [await _count(limit, who, 5) for who in ("ada", "eve", "ada")] == [3, 3, 0]
    assert await _count(Limit("other", 3, 60), "ada", 5) == 3
    await limit.forget("ada")
    assert await _count(limit, "ada", 5) == 3


async def test_the_count_expires_after_the_window() -> None:
    limit = Limit("short", 1, 1)
    await limit.count("ada")
    with pytest.raises(RateLimited) as found:
        await limit.count("ada")
    assert found.value.retry_after == 1
    end = time.monotonic() + 10
    while await _count(limit, "ada", 1) == 0:
        assert time.monotonic() < end
    keys = await (await cache.connected()).keys(cache.key("limit:*"))
    assert "ada" not in str(keys)


async def test_the_counts_of_a_group_are_reset_together() -> None:
    limit = Limit("test", 1, 60)
    for who in ("home", "work"):
        await limit.count(who, "ada")
    await limit.count("home", "eve")
    await limit.forget_group("ada")
    for who in ("home", "work"):
        await limit.count(who, "ada")
        with pytest.raises(RateLimited):
            await limit.count(who, "ada")
    with pytest.raises(RateLimited):
        await limit.count("home", "eve")


async def test_a_slowdown_grows_up_to_max_delay() -> None:
    slowdown = Slowdown("slow", 2, 60, max_delay=4)
    assert [await slowdown.count("ada") for _ in range(6)] == [0, 0, 2, 4, 4, 4]
    assert await slowdown.count("eve") == 0
    await slowdown.forget("ada")
    assert await slowdown.count("ada") == 0


async def test_logins_are_limited_for_existing_and_unknown_accounts(client: httpx.AsyncClient) -> None:
    await add_user()
    for email in (ADA["email"], "nobody@example.com"):
        body = {"email": email.upper(), "password": OTHER}
        tries = limits.LOGIN.per_client.times
        responses = [await client.post("/login", json=body) for _ in range(tries + 1)]
        assert [response.status_code for response in responses] == [401] * tries + [429]
        assert 0 < int(responses[-1].headers["retry-after"]) <= limits.LOGIN.per_client.seconds
    assert (await client.post("/login", json=ADA)).status_code == 429


async def test_a_successful_login_resets_the_attempts(client: httpx.AsyncClient) -> None:
    await add_user()
    # First without, then with the cookie of a known device.
    for _ in range(2):
        for _ in range(limits.LOGIN.per_client.times - 1):
            await client.post("/login", json={**ADA, "password": OTHER})
        await log_in(client)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Allow only few attempts; record the delays instead of waiting."""
    delays: list[float] = []

    async def note(seconds: float) -> None:
        if seconds:
            delays.append(seconds)

    monkeypatch.setattr(constant_time, "SECONDS", 0)
    monkeypatch.setattr(limits, "wait", note)
    for name in ("LOGIN", "CODE", "MAIL"):
        budget = limits.Budget(Limit(f"few-{name}", 3, 900), Slowdown(f"few-{name}-all", 5, 900))
        monkeypatch.setattr(limits, name, budget)
        for module in (accounts, logins):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, budget)
    monkeypatch.setattr(limits, "CLIENT", Limit("few-client", 10, 900))
    return delays


@pytest.mark.parametrize("path", ["/login", "/register", "/forgot-password", "/verify-email", "/reset-password"])
async def test_a_client_uses_up_only_its_own_attempts(client: httpx.AsyncClient, path: str, few: list[float]) -> None:
    await add_user()
    body = {"email": ADA["email"], "password": OTHER, "code": "AAAAAAAA"}
    async with client_at("192.0.2.1", client) as stranger:
        responses = [(await stranger.post(path, json=body)).status_code for _ in range(4)]
        assert (responses[2] < 429, responses[3]) == (True, 429)
        assert (await client.post(path, json=body)).status_code == responses[0]
        # The stranger can still try other addresses, until the limit of the client is reached.
        others = [{**body, "email": f"{number}@example.com"} for number in range(7)]
        responses = [(await stranger.post(path, json=other)).status_code for other in others]
    assert 429 not in responses[:6]
    assert responses[6] == 429


async def test_attempts_of_many_clients_delay_an_address_but_do_not_block_it(
    client: httpx.AsyncClient, few: list[float]
) -> None:
    await add_user()
    for number in range(12):
        async with client_at(f"192.0.2.{number}", client) as stranger:
            assert (await stranger.post("/login", json={**ADA, "password": OTHER})).status_code == 401
    assert few == [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0]
    await log_in(client)
    assert len(few) == 8
    # A known device is not slowed down.
    await log_in(client)
    assert len(few) == 8


async def test_a_known_device_has_its_own_attempts(client: httpx.AsyncClient, few: list[float]) -> None:
    """Even if it has the same IP address as the stranger."""
    await add_user()
    await log_in(client)
    async with client_at("127.0.0.1", client) as stranger:
        for number in range(12):
            body = {"email": ADA["email"] if number < 4 else f"{number}@example.com", "password": OTHER}
            response = await stranger.post("/login", json=body)
        assert response.status_code == 429
        # The cookie is signed and valid for one account.
        (cookie,) = client.cookies.jar
        assert cookie.value is not None
        for value in ("x", "x.y", cookie.value.replace(".", "0.", 1), f"{cookie.value}0", "\xff.1.2"):
            headers = [(b"cookie", f"{cookie.name}={value}".encode("latin-1"))]
            assert (await stranger.post("/login", json=ADA, headers=headers)).status_code == 429
    for path in ("/login", "/forgot-password", "/resend-verification"):
        assert (await client.post(path, json=ADA)).is_success
    wrong = {**ADA, "password": OTHER}
    responses = [(await client.post("/login", json=wrong)).status_code for _ in range(4)]
    assert responses == [401, 401, 401, 429]


async def test_a_device_cookie_expires(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_user()
    await log_in(client)
    headers = {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}

    def device() -> str | None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        return known_device.known_device(Request({"type": "http", "headers": raw}), ADA["email"].upper())

    first = device()
    assert first is not None
    await log_in(client)
    assert device() == first
    later = time.time() + 181 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    assert device() is None


@pytest.mark.parametrize(("environment", "is_secure"), [("test", False), ("production", True)])
def test_the_device_cookie_is_http_only_and_secure(
    environment: str, is_secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_settings, "environment", environment)
    response = Response()
    known_device.remember_device(Request({"type": "http", "headers": []}), response, ADA["email"])
    cookie = response.headers["set-cookie"]
    assert ("HttpOnly" in cookie, "SameSite=lax" in cookie, "Secure" in cookie) == (True, True, is_secure)
    assert ADA["email"] not in cookie


async def test_a_password_reset_resets_the_attempts_of_all_clients(client: httpx.AsyncClient, few: list[float]) -> None:
    await add_user()
    async with client_at("192.0.2.1", client) as phone:
        for one in (client, phone):
            responses = [(await one.post("/login", json={**ADA, "password": OTHER})).status_code for _ in range(4)]
            assert responses[-1] == 429
        body = {**ADA, "password": OTHER, "code": await code_for("reset")}
        assert (await client.post("/reset-password", json=body)).status_code == 200
        few.clear()
        for one in (client, phone):
            await log_in(one, password=OTHER)
    assert few == []


async def test_all_counts_expire(client: httpx.AsyncClient, few: list[float]) -> None:
    await add_user()
    for path in ("/login", "/register", "/verify-email", "/reset-password"):
        await client.post(path, json={**ADA, "password": OTHER, "code": await code_for("reset")})
    redis = await cache.connected()
    keys = await redis.keys(cache.key("limit:*"))
    assert len(keys) > 6
    assert all([0 < await redis.ttl(key) <= 900 for key in keys])
    assert "ada" not in str(keys)


async def test_mails_to_an_address_are_limited(client: httpx.AsyncClient) -> None:
    paths = ["/register", "/resend-verification", "/forgot-password"] * 2
    responses = [await client.post(path, json=ADA) for path in paths]
    assert [response.status_code for response in responses] == [202] * limits.MAIL.per_client.times + [429]


async def test_attempts_at_the_current_password_are_limited(client: httpx.AsyncClient) -> None:
    await add_user()
    tokens = await log_in(client)
    body = {"current_password": "wrong horse battery", "new_password": OTHER}
    responses = [
        await client.post("/change-password", json=body, headers=bearer(tokens))
        for _ in range(limits.PASSWORD.times + 1)
    ]
    assert [response.status_code for response in responses] == [400] * limits.PASSWORD.times + [429]


async def test_all_attempts_of_a_client_are_limited_together(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLIENT", Limit("client", 3, 60))
    paths = ["/login", "/refresh", "/verify-email", "/register"]
    bodies = [ADA, {"refresh_token": "x"}, {**ADA, "code": "x"}, ADA]
    responses = [await client.post(path, json=body) for path, body in zip(paths, bodies, strict=True)]
    assert [response.status_code for response in responses] == [401, 401, 400, 429]


async def test_without_redis_a_login_is_unavailable(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise RedisError

    await add_user()
    monkeypatch.setattr(cache, "connected", fail)
    assert (await client.post("/login", json=ADA)).status_code == 503


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unix", "unix"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_an_ipv6_network_counts_as_one_client(host: str, client: str) -> None:
    assert limits.client_of(Request({"type": "http", "client": (host, 1)})) == client
