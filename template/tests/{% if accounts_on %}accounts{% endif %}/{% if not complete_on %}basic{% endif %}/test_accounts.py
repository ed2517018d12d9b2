"""Registration of basic accounts: POST /register."""

import asyncio

import httpx2 as httpx
import pytest
from sqlalchemy import func, select, update

from app.core.database import session_scope
from app.features.accounts.models import User
from app.features.accounts.security import verify_password

pytestmark = pytest.mark.anyio

ADA = {"email": "Ada@Example.com", "password": "correct horse battery"}


async def test_register_creates_one_account(client: httpx.AsyncClient) -> None:
    response = await client.post("/register", json=ADA)
    assert response.status_code == 201, response.text
    async with session_scope() as db:
        user = (await db.scalars(select(User))).one()
    assert user.id == response.json()["user_id"]
    assert user.email == "ada@example.com"
    assert await verify_password(ADA["password"], user.password_hash)
    assert ADA["password"] not in response.text


async def test_an_address_can_register_only_once(client: httpx.AsyncClient) -> None:
    responses = await asyncio.gather(*(client.post("/register", json=ADA) for _ in range(4)))
    assert sorted(response.status_code for response in responses) == [201, 409, 409, 409]
    async with session_scope() as db:
        assert await db.scalar(select(func.count()).select_from(User)) == 1


@pytest.mark.parametrize("release", ["this", "earlier"])
async def test_basic_accounts_are_verified(client: httpx.AsyncClient, release: str) -> None:
    """Complete accounts reject users whose address is not verified."""
    await client.post("/register", json=ADA)
    if release == "earlier":
        async with session_scope() as db:
            await db.execute(update(User).values(is_verified=False))
        assert (await client.post("/login", json=ADA)).status_code == 200
    async with session_scope() as db:
        assert (await db.scalars(select(User.is_verified))).one()


@pytest.mark.parametrize(
    "body", [{}, {"email": "no", "password": "long enough"}, {"email": "a@example.com", "password": "short"}, [], "x"]
)
async def test_invalid_input_is_rejected(client: httpx.AsyncClient, body: object) -> None:
    assert (await client.post("/register", json=body)).status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        '{"password": "halibut7"}',
        '{"email": "a@example.com", "password": "halib"}',
        '{"email": "a@example.com", "password": "halibut7\\ud800"}',
        '{"email": "\\ud800@example.com", "password": "halibut7"}',
    ],
)
async def test_an_error_does_not_repeat_the_input(client: httpx.AsyncClient, body: str) -> None:
    response = await client.post("/register", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert response.json()["detail"][0]["msg"]
    assert "halib" not in response.text
