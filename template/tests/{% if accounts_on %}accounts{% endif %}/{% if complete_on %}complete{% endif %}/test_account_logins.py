"""Refresh tokens, devices, and changing the password."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx2 as httpx
import jwt
import pytest
from sqlalchemy import func, select, update

from app.core.database import session_scope
from app.features.accounts.config import jwt_settings
from app.features.accounts.models import Session, User
from tests.accounts.complete.people import ADA, OTHER, add_user, bearer, log_in

pytestmark = pytest.mark.anyio

Tokens = dict[str, str]


@pytest.fixture(autouse=True)
async def ada() -> User:
    """Return an account."""
    return await add_user()


async def _refresh(client: httpx.AsyncClient, tokens: Tokens) -> httpx.Response:
    return await client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})


async def _me(client: httpx.AsyncClient, tokens: Tokens) -> int:
    return (await client.get("/users/me", headers=bearer(tokens))).status_code


async def test_users_me_returns_the_current_user(client: httpx.AsyncClient, ada: User) -> None:
    tokens = await log_in(client)
    response = await client.get("/users/me", headers=bearer(tokens))
    assert response.json()["email"] == ADA["email"]
    assert set(response.json()) == {"id", "email", "is_verified", "created_at"}


async def test_tokens_are_not_cached(client: httpx.AsyncClient) -> None:
    responses = [await client.post("/login", json=ADA)]
    responses.append(await _refresh(client, responses[0].json()))
    assert [response.headers["cache-control"] for response in responses] == ["no-store"] * 2


async def test_a_refresh_token_is_not_an_access_token_nor_the_reverse(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    swapped = {"access_token": tokens["refresh_token"], "refresh_token": tokens["access_token"]}
    assert await _me(client, swapped) == 401
    assert (await _refresh(client, swapped)).status_code == 401
    # The login is still active.
    assert await _me(client, tokens) == 200
    assert (await _refresh(client, tokens)).status_code == 200


async def test_a_refresh_returns_new_tokens_and_extends_the_login(client: httpx.AsyncClient) -> None:
    first = await log_in(client)
    soon = datetime.now(UTC) + timedelta(seconds=30)
    async with session_scope() as db:
        await db.execute(update(Session).values(expires_at=soon))
    second = (await _refresh(client, first)).json()
    third = (await _refresh(client, second)).json()
    assert len({tokens[name] for tokens in (first, second, third) for name in ("access_token", "refresh_token")}) == 6
    assert [await _me(client, tokens) for tokens in (first, second, third)] == [200] * 3
    async with session_scope() as db:
        session = (await db.scalars(select(Session))).one()
    left = session.expires_at - datetime.now(UTC)
    assert left > timedelta(seconds=jwt_settings.refresh_token_expiration - 60)
    for token in third.values():
        assert str(token) not in str(vars(session)), "a stolen database must not give access"


async def test_reusing_a_refresh_token_ends_its_login(client: httpx.AsyncClient) -> None:
    first, bystander = await log_in(client), await log_in(client)
    second = (await _refresh(client, first)).json()
    assert (await _refresh(client, first)).status_code == 401
    assert (await _refresh(client, second)).status_code == 401, "one of the two clients has stolen it"
    assert await _me(client, second) == 401
    assert await _me(client, bystander) == 200


async def test_of_concurrent_refreshes_at_most_one_succeeds(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    responses = await asyncio.gather(*(_refresh(client, tokens) for _ in range(4)))
    assert sorted(response.status_code for response in responses) == [200, 401, 401, 401]
    async with session_scope() as db:
        assert await db.scalar(select(func.count()).select_from(Session)) == 0


async def test_an_invalid_refresh_token_does_not_end_a_login(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    payload = jwt.decode(tokens["refresh_token"], options={"verify_signature": False})
    forged = jwt.encode(payload, "a key that is long enough but not ours", algorithm="HS256")
    for token in (forged, "x", tokens["refresh_token"] + "x"):
        assert (await client.post("/refresh", json={"refresh_token": token})).status_code == 401
    assert (await client.post("/refresh", json={"refresh_token": "x" * 2001})).status_code == 422
    assert (await _refresh(client, tokens)).status_code == 200


async def test_an_expired_login_cannot_be_refreshed(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    async with session_scope() as db:
        await db.execute(update(Session).values(expires_at=datetime.now(UTC)))
    assert (await _refresh(client, tokens)).status_code == 401
    assert await _me(client, tokens) == 401


async def test_logout_ends_one_login_and_logout_all_ends_all(client: httpx.AsyncClient) -> None:
    await add_user("eve@example.com")
    one, two, three = [await log_in(client) for _ in range(3)]
    eve = await log_in(client, email="eve@example.com")
    assert (await client.post("/logout", headers=bearer(one))).status_code == 204
    assert [await _me(client, tokens) for tokens in (one, two, three)] == [401, 200, 200]
    assert (await _refresh(client, one)).status_code == 401
    assert (await client.post("/logout-all", headers=bearer(two))).status_code == 204
    assert [await _me(client, tokens) for tokens in (two, three, eve)] == [401, 401, 200]
    assert (await client.post("/logout", headers=bearer(two))).status_code == 401


async def test_devices_are_listed_and_ended(client: httpx.AsyncClient) -> None:
    await add_user("eve@example.com")
    eve = await log_in(client, email="eve@example.com")
    phone = (await client.post("/login", json=ADA, headers={"User-Agent": "Phone " + "x" * 300})).json()
    laptop = (await client.post("/login", json=ADA, headers={"User-Agent": "Laptop"})).json()
    listed = (await client.get("/devices", headers=bearer(laptop))).json()
    assert [(device["user_agent"][:6], device["current"]) for device in listed] == [("Laptop", True), ("Phone ", False)]
    await _refresh(client, phone)
    listed = (await client.get("/devices", headers=bearer(laptop))).json()
    assert [device["user_agent"][:6] for device in listed] == ["Phone ", "Laptop"], "the most recently used first"
    path = f"/devices/{listed[0]['id']}"
    assert (await client.delete(path, headers=bearer(eve))).status_code == 404
    assert (await client.delete(path, headers=bearer(laptop))).status_code == 204
    assert [await _me(client, tokens) for tokens in (phone, laptop, eve)] == [401, 200, 200]
    for unknown in (listed[0]["id"], 0, -1, 10**30):
        assert (await client.delete(f"/devices/{unknown}", headers=bearer(laptop))).status_code == 404


async def test_changing_the_password_ends_the_other_logins(client: httpx.AsyncClient) -> None:
    here, there = await log_in(client), await log_in(client)
    body = {"current_password": "wrong horse battery", "new_password": OTHER}
    wrong = await client.post("/change-password", json=body, headers=bearer(here))
    assert (wrong.status_code, await _me(client, there)) == (400, 200)
    body["current_password"] = ADA["password"]
    assert (await client.post("/change-password", json=body)).status_code == 401
    assert (await client.post("/change-password", json=body, headers=bearer(here))).status_code == 204
    assert [await _me(client, tokens) for tokens in (here, there)] == [200, 401]
    assert (await client.post("/login", json=ADA)).status_code == 401
    await log_in(client, password=OTHER)


async def test_of_concurrent_password_changes_the_first_wins(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    passwords = [f"{OTHER} {number}" for number in range(3)]
    responses = await asyncio.gather(
        *(
            client.post(
                "/change-password",
                json={"current_password": ADA["password"], "new_password": password},
                headers=bearer(tokens),
            )
            for password in passwords
        )
    )
    assert sorted(response.status_code for response in responses) == [204, 400, 400]
    (set_now,) = [password for password, response in zip(passwords, responses, strict=True) if response.is_success]
    await log_in(client, password=set_now)
