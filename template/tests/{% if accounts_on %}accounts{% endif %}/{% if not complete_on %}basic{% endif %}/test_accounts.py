"""POST /register."""

import asyncio

import httpx
import pytest
from sqlalchemy import func, select, update

from app.core.database import session_scope
from app.features.accounts.models import User
from app.features.accounts.security import verify_password

pytestmark = pytest.mark.anyio

ADA = {"email": "Ada@Example.com", "password": "correct horse battery"}


async def test_register_creates_one_account(client: httpx.AsyncClient) -> None:
    answer = await client.post("/register", json=ADA)
    assert answer.status_code == 201, answer.text
    async with session_scope() as db:
        user = (await db.scalars(select(User))).one()
    assert user.id == answer.json()["user_id"]
    assert user.email == "ada@example.com"
    assert await verify_password(ADA["password"], user.password_hash)
    assert ADA["password"] not in answer.text


async def test_an_address_registers_once(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.post("/register", json=ADA) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    async with session_scope() as db:
        assert await db.scalar(select(func.count()).select_from(User)) == 1


@pytest.mark.parametrize("release", ["this", "earlier"])
async def test_who_registers_and_logs_in_without_a_code_needs_none_later(
    client: httpx.AsyncClient, release: str
) -> None:
    """Complete accounts refuse the others."""
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
async def test_bad_input_is_refused(client: httpx.AsyncClient, body: object) -> None:
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
async def test_a_refusal_does_not_repeat_what_was_sent(client: httpx.AsyncClient, body: str) -> None:
    answer = await client.post("/register", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"]
    assert "halib" not in answer.text
