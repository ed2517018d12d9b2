"""Operators: only the command line makes a user one."""

import asyncio
import json
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy.exc import OperationalError

from app.core.database import session_scope
from app.features.accounts import service
from app.features.accounts.models import User
from app.features.accounts.schemas import RegisterRequest
from tests.cli.fixtures import RunCli

ADA = "ada@example.com"


def _add_user(email: str = ADA) -> None:
    async def add() -> None:
        async with session_scope() as db:
            db.add(User(email=email, password_hash="x", is_verified=True))

    asyncio.run(add())


def _operators() -> list[str]:
    async def read() -> list[str]:
        async with session_scope() as db:
            return await service.operators(db)

    return asyncio.run(read())


def test_a_new_user_is_no_operator() -> None:
    _add_user()
    assert _operators() == []


def test_the_command_line_makes_operators_and_takes_it_back(run_cli: RunCli) -> None:
    _add_user()
    _add_user("bob@example.com")
    outcome = run_cli("users", "operator", "Ada@Example.com", "--on")
    assert (outcome.code, outcome.out) == (0, f"{ADA} is an operator now.\n")
    assert _operators() == [ADA]
    assert json.loads(run_cli("users", "operators", "--json").out) == [{"email": ADA}]
    assert run_cli("users", "operators").out.split() == ["operator", ADA]
    outcome = run_cli("users", "operator", ADA, "--off", "--json")
    assert json.loads(outcome.out) == {"email": ADA, "is_operator": False}
    assert _operators() == []


def test_an_unknown_address_exits_with_3(run_cli: RunCli) -> None:
    outcome = run_cli("users", "operator", ADA, "--on")
    assert (outcome.code, outcome.err) == (3, f"Error: no user has the address {ADA}\n")


def test_on_or_off_must_be_given(run_cli: RunCli) -> None:
    _add_user()
    assert run_cli("users", "operator", ADA).code == 2
    assert _operators() == []


def test_a_database_that_does_not_answer_exits_with_4(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> bool:
        raise OperationalError("SELECT secret", {}, ConnectionError("no server"))

    monkeypatch.setattr("app.features.accounts.service.set_operator", refuse)
    outcome = run_cli("users", "operator", ADA, "--on")
    assert outcome.code == 4
    assert "no server" in outcome.err
    assert "SELECT" not in outcome.err


async def test_a_registration_cannot_ask_for_it(client: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"email": ADA, "password": "correct horse battery", "is_operator": True}
    assert "is_operator" not in RegisterRequest.model_validate(body).model_dump()
    response = await client.post("/register", json=body)
    assert response.status_code < 500
    async with session_scope() as db:
        assert await service.operators(db) == []


async def test_no_request_has_it(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    bodies = {
        name.rpartition("/")[2]
        for operations in document["paths"].values()
        for operation in operations.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for name in [content["schema"].get("$ref", "")]
    }
    schemas = document["components"]["schemas"]
    assert [name for name in bodies if "is_operator" in schemas.get(name, {}).get("properties", {})] == []
