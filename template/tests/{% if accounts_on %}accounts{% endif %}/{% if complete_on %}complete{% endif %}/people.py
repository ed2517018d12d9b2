"""Helpers for tests: accounts, codes and logins."""

from typing import Any

import httpx2 as httpx
from sqlalchemy import select

from app.core.database import session_scope
from app.features.accounts.complete.codes import Purpose, new_code
from app.features.accounts.complete.models import AccountRegistration
from app.features.accounts.complete.registration import registration_code
from app.features.accounts.models import User
from app.features.accounts.security import hash_password

ADA = {"email": "ada@example.com", "password": "correct horse battery"}
OTHER = "staple horse battery"


async def add_user(email: str = ADA["email"], *, is_verified: bool = True) -> User:
    """Add an account with Ada's password."""
    async with session_scope() as db:
        user = User(email=email, password_hash=await hash_password(ADA["password"]), is_verified=is_verified)
        db.add(user)
        await db.flush()
    return user


async def code_for(purpose: Purpose, email: str = ADA["email"]) -> str:
    """Return a new code as it would be mailed."""
    async with session_scope() as db:
        user = (await db.scalars(select(User).where(User.email == email))).one()
        return await new_code(db, user, purpose)


async def registration_codes(email: str = ADA["email"]) -> list[str]:
    """Return new codes for the registrations of an address, the oldest first."""
    async with session_scope() as db:
        query = select(AccountRegistration.id).where(AccountRegistration.email == email)
        ids = list(await db.scalars(query.order_by(AccountRegistration.id)))
        codes = [await registration_code(db, registration_id) for registration_id in ids]
    return [code for code in codes if code is not None]


async def log_in(client: httpx.AsyncClient, **changes: str) -> dict[str, Any]:
    """Return the tokens of a new login."""
    response = await client.post("/login", json={**ADA, **changes})
    assert response.status_code == 200, response.text
    return dict(response.json())


def client_at(host: str, client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return a client of the same application with another IP address."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    return httpx.AsyncClient(transport=httpx.ASGITransport(transport.app, client=(host, 1)), base_url="http://test")


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    """Return the Authorization header of a login."""
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def get_user(email: str = ADA["email"]) -> User:
    """Return the stored account."""
    async with session_scope() as db:
        return (await db.scalars(select(User).where(User.email == email))).one()
