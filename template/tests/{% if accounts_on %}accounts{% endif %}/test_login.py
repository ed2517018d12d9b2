"""POST /login and access tokens."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from statistics import median

import httpx2 as httpx
import jwt
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, select, update

from app.core.database import session_scope
from app.features.accounts import service as accounts
from app.features.accounts.config import JwtSettings, jwt_settings
from app.features.accounts.deps import CurrentUser
from app.features.accounts.models import Session, User
from app.features.accounts.security import hash_password, verify_password

pytestmark = pytest.mark.anyio

ADA = {"email": "ada@example.com", "password": "correct horse battery"}


@pytest.fixture
async def ada() -> User:
    """Return an account."""
    async with session_scope() as db:
        user = User(email=ADA["email"], password_hash=await hash_password(ADA["password"]), is_verified=True)
        db.add(user)
        await db.flush()
    return user


@pytest.fixture
async def who() -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application with a route that returns the current user."""
    app = FastAPI()

    @app.get("/who")
    async def _who(user: CurrentUser) -> str:
        return user.email

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as session:
        yield session


async def _token(client: httpx.AsyncClient) -> str:
    response = await client.post("/login", json=ADA)
    assert response.status_code == 200, response.text
    assert response.json()["token_type"] == "bearer"
    assert response.json()["expires_in"] == jwt_settings.access_token_expiration
    return str(response.json()["access_token"])


async def _status(who: httpx.AsyncClient, token: str) -> int:
    return (await who.get("/who", headers={"Authorization": f"Bearer {token}"})).status_code


def _payload(token: str) -> dict[str, object]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def _signed(payload: dict[str, object], **changes: object) -> str:
    key = str(changes.pop("key", jwt_settings.secret_key.get_secret_value()))
    return jwt.encode({**payload, **changes}, key, algorithm="HS256")


async def test_an_access_token_identifies_the_user(
    client: httpx.AsyncClient, who: httpx.AsyncClient, ada: User
) -> None:
    token = await _token(client)
    response = await who.get("/who", headers={"Authorization": f"Bearer {token}"})
    assert (response.status_code, response.json()) == (200, ada.email)
    assert ADA["email"] not in str(_payload(token))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer x.y.z", "Basic YTpi", "Bearer \xff"])
async def test_other_authorization_headers_are_rejected(who: httpx.AsyncClient, header: str) -> None:
    response = await who.get("/who", headers=[(b"authorization", header.encode("latin-1"))])
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_modified_token_is_rejected(client: httpx.AsyncClient, who: httpx.AsyncClient, ada: User) -> None:
    payload = _payload(await _token(client))
    assert await _status(who, _signed(payload)) == 200
    past = datetime.now(UTC) - timedelta(minutes=1)
    refused = [
        _signed(payload, key="another key that is long enough to sign with"),
        _signed(payload, exp=past),
        _signed(payload, iss="somebody else"),
        _signed(payload, aud="somebody else"),
        _signed(payload, sub=str(ada.id + 1)),
        _signed(payload, use="refresh"),
        _signed(payload, sid="1"),
        _signed(payload, sid="x.y"),
        _signed(payload, sid=7),
        _signed(payload, sid="1." + "9" * 30),
        _signed({name: value for name, value in payload.items() if name != "exp"}),
        jwt.encode(payload, "", algorithm="none"),
    ]
    assert [await _status(who, token) for token in refused] == [401] * len(refused)


async def test_a_token_becomes_invalid_with_its_session_and_its_user(
    client: httpx.AsyncClient, who: httpx.AsyncClient, ada: User
) -> None:
    ended, expired, blocked = [await _token(client) for _ in range(3)]
    async with session_scope() as db:
        first, second, _ = (await db.scalars(select(Session.id).order_by(Session.id))).all()
        await db.execute(delete(Session).where(Session.id == first))
        await db.execute(update(Session).where(Session.id == second).values(expires_at=datetime.now(UTC)))
    assert [await _status(who, token) for token in (ended, expired, blocked)] == [401, 401, 200]
    async with session_scope() as db:
        await db.execute(update(User).values(is_active=False))
    assert await _status(who, blocked) == 401
    assert (await client.post("/login", json=ADA)).status_code == 401


async def test_the_token_of_an_ended_session_is_invalid_for_the_next_session(
    client: httpx.AsyncClient, who: httpx.AsyncClient, ada: User
) -> None:
    """SQLite reuses the id of the deleted row."""
    token = await _token(client)
    async with session_scope() as db:
        old = (await db.scalars(select(Session))).one()
        await db.delete(old)
        await db.flush()
        db.add(Session(id=old.id, user_id=ada.id, token_hash="a" * 64, expires_at=old.expires_at))
    assert await _status(who, token) == 401


async def test_concurrent_logins_work(client: httpx.AsyncClient, who: httpx.AsyncClient, ada: User) -> None:
    tokens = await asyncio.gather(*(_token(client) for _ in range(4)))
    assert len(set(tokens)) == 4
    assert await asyncio.gather(*(_status(who, token) for token in tokens)) == [200] * 4


async def test_failed_logins_have_the_same_response(client: httpx.AsyncClient, ada: User) -> None:
    responses = [
        await client.post("/login", json={**ADA, **change})
        for change in ({"password": "wrong horse battery"}, {"email": "nobody@example.com"})
    ]
    assert [(response.status_code, response.text) for response in responses] == [(401, responses[0].text)] * 2


@pytest.mark.usefixtures("real_hashes")
async def test_an_unknown_address_takes_as_long_as_a_wrong_password(client: httpx.AsyncClient, ada: User) -> None:
    async def seconds(email: str) -> float:
        start = time.perf_counter()
        await client.post("/login", json={"email": email, "password": "wrong horse battery"})
        return time.perf_counter() - start

    pairs = [(await seconds(ADA["email"]), await seconds("nobody@example.com")) for _ in range(4)]
    known, unknown = (median(times) for times in zip(*pairs, strict=True))
    # Without hashing it would be a hundredth.
    assert unknown > known / 3


@pytest.mark.usefixtures("real_hashes")
async def test_a_weak_hash_is_replaced_at_login(client: httpx.AsyncClient, ada: User) -> None:
    from argon2 import PasswordHasher

    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(ADA["password"])
    async with session_scope() as db:
        await db.execute(update(User).values(password_hash=weak))
    await _token(client)
    async with session_scope() as db:
        assert "m=65536" in str(await db.scalar(select(User.password_hash)))
    await _token(client)


@pytest.mark.parametrize("change", ["password", "weak", "blocked"])
async def test_a_login_fails_if_the_password_changes_meanwhile(
    client: httpx.AsyncClient, ada: User, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise somebody with the old password could keep a login that the change should end."""
    changed = {"is_active": False} if change == "blocked" else {"password_hash": await hash_password("staple battery")}
    if change == "weak":
        monkeypatch.setattr(accounts, "needs_rehash", lambda _: True)

    async def changed_meanwhile(password: str, password_hash: str | None) -> bool:
        matches = await verify_password(password, password_hash)
        async with session_scope() as db:
            await db.execute(update(User).values(**changed))
        return matches

    monkeypatch.setattr(accounts, "verify_password", changed_meanwhile)
    assert (await client.post("/login", json=ADA)).status_code == 401
    async with session_scope() as db:
        assert (await db.scalars(select(Session))).all() == []
        user = (await db.scalars(select(User))).one()
    assert {name: getattr(user, name) for name in changed} == changed


@pytest.mark.parametrize("email", ["ada@example.com", "ADA@example.com"])
async def test_the_address_is_rejected_as_password(client: httpx.AsyncClient, email: str) -> None:
    response = await client.post("/register", json={"email": "Ada@Example.com", "password": email})
    assert response.status_code == 422
    assert "must not be the e-mail address" in response.text


@pytest.mark.parametrize("email", ["ädä@example.com", f"ada@{'.'.join(['ü' * 40] * 6)}.com"])
async def test_an_address_that_mail_servers_reject_is_rejected(client: httpx.AsyncClient, email: str) -> None:
    response = await client.post("/register", json={**ADA, "email": email})
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert (problem["loc"], "must have" in problem["msg"] or "too long" in problem["msg"]) == (["body", "email"], True)


async def test_an_account_of_an_earlier_release_with_such_an_address_can_log_in(
    client: httpx.AsyncClient, ada: User
) -> None:
    async with session_scope() as db:
        await db.execute(update(User).values(email="ädä@example.com"))
    response = await client.post("/login", json={**ADA, "email": "ädä@example.com"})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("key", "algorithm", "problem"),
    [
        (None, "HS256", "default"),
        ("<random:jwt_secret_key>", "HS256", "default"),
        ("s" * 31, "HS256", "too short"),
        ("s" * 43, "HS512", "too short"),
        ("s" * 32, "HS256", None),
    ],
)
def test_the_audit_finds_a_weak_key(
    key: str | None, algorithm: str, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JWT_SECRET_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("JWT_SECRET_KEY", key)
    monkeypatch.setenv("JWT_ALGORITHM", algorithm)
    problems = JwtSettings().audit()
    assert len(problems) == (problem is not None)
    assert all(str(problem) in found for found in problems)
