"""Refresh tokens, devices, and the password of somebody who is logged in."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
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
    """Give an account."""
    return await add_user()


async def _refresh(client: httpx.AsyncClient, tokens: Tokens) -> httpx.Response:
    return await client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})


async def _me(client: httpx.AsyncClient, tokens: Tokens) -> int:
    return (await client.get("/users/me", headers=bearer(tokens))).status_code


async def test_a_login_tells_who_asks(client: httpx.AsyncClient, ada: User) -> None:
    tokens = await log_in(client)
    answer = await client.get("/users/me", headers=bearer(tokens))
    assert answer.json()["email"] == ADA["email"]
    assert set(answer.json()) == {"id", "email", "is_verified", "created_at"}


async def test_tokens_are_not_cached(client: httpx.AsyncClient) -> None:
    answers = [await client.post("/login", json=ADA)]
    answers.append(await _refresh(client, answers[0].json()))
    assert [answer.headers["cache-control"] for answer in answers] == ["no-store"] * 2


async def test_neither_token_stands_in_for_the_other(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    swapped = {"access_token": tokens["refresh_token"], "refresh_token": tokens["access_token"]}
    assert await _me(client, swapped) == 401
    assert (await _refresh(client, swapped)).status_code == 401
    # Neither attempt has ended the login.
    assert await _me(client, tokens) == 200
    assert (await _refresh(client, tokens)).status_code == 200


async def test_a_refresh_gives_new_tokens_and_lets_the_login_last(client: httpx.AsyncClient) -> None:
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
        assert str(token) not in str(vars(session)), "a stolen database opens no account"


async def test_a_refresh_token_that_comes_twice_ends_its_login(client: httpx.AsyncClient) -> None:
    first, bystander = await log_in(client), await log_in(client)
    second = (await _refresh(client, first)).json()
    assert (await _refresh(client, first)).status_code == 401
    assert (await _refresh(client, second)).status_code == 401, "one of the two has stolen it"
    assert await _me(client, second) == 401
    assert await _me(client, bystander) == 200


async def test_of_parallel_refreshes_at_most_one_succeeds(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    answers = await asyncio.gather(*(_refresh(client, tokens) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
    async with session_scope() as db:
        assert await db.scalar(select(func.count()).select_from(Session)) == 0


async def test_a_refresh_token_that_nobody_signed_ends_nothing(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    payload = jwt.decode(tokens["refresh_token"], options={"verify_signature": False})
    forged = jwt.encode(payload, "a key that is long enough but not ours", algorithm="HS256")
    for token in (forged, "x", tokens["refresh_token"] + "x"):
        assert (await client.post("/refresh", json={"refresh_token": token})).status_code == 401
    assert (await client.post("/refresh", json={"refresh_token": "x" * 2001})).status_code == 422
    assert (await _refresh(client, tokens)).status_code == 200


async def test_a_login_that_expired_is_not_refreshed(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    async with session_scope() as db:
        await db.execute(update(Session).values(expires_at=datetime.now(UTC)))
    assert (await _refresh(client, tokens)).status_code == 401
    assert await _me(client, tokens) == 401


async def test_logout_ends_one_login_and_logout_all_every(client: httpx.AsyncClient) -> None:
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
    assert [device["user_agent"][:6] for device in listed] == ["Phone ", "Laptop"], "the one used last first"
    path = f"/devices/{listed[0]['id']}"
    assert (await client.delete(path, headers=bearer(eve))).status_code == 404
    assert (await client.delete(path, headers=bearer(laptop))).status_code == 204
    assert [await _me(client, tokens) for tokens in (phone, laptop, eve)] == [401, 200, 200]
    for unknown in (listed[0]["id"], 0, -1, 10**30):
        assert (await client.delete(f"/devices/{unknown}", headers=bearer(laptop))).status_code == 404


async def test_a_change_of_the_password_ends_the_other_logins(client: httpx.AsyncClient) -> None:
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


async def test_of_parallel_changes_the_first_counts(client: httpx.AsyncClient) -> None:
    tokens = await log_in(client)
    passwords = [f"{OTHER} {number}" for number in range(3)]
    answers = await asyncio.gather(
        *(
            client.post(
                "/change-password",
                json={"current_password": ADA["password"], "new_password": password},
                headers=bearer(tokens),
            )
            for password in passwords
        )
    )
    assert sorted(answer.status_code for answer in answers) == [204, 400, 400]
    (set_now,) = [password for password, answer in zip(passwords, answers, strict=True) if answer.is_success]
    await log_in(client, password=set_now)
