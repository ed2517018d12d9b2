"""Password hashing."""

import asyncio
import itertools
import threading

import httpx2 as httpx
import pytest
from pydantic import SecretStr

from app.core.database import session_scope
from app.core.threads import BoundedThreads
from app.features.accounts import security
from app.features.accounts.config import password_settings
from app.features.accounts.models import User
from app.features.accounts.schemas import RegisterRequest
from app.features.accounts.security import hash_password, needs_rehash, verify_password
from app.features.accounts.service import EmailTaken, create_user
from tests import ROOT

PASSWORD = "correct horse battery"


@pytest.mark.usefixtures("real_hashes")
async def test_a_hash_matches_only_its_password() -> None:
    hashed = await hash_password(PASSWORD)
    assert hashed.startswith("$argon2id$")
    assert await hash_password(PASSWORD) != hashed
    assert await verify_password(PASSWORD, hashed)
    assert not await verify_password("correct horse batterY", hashed)
    assert not await verify_password(PASSWORD, "no hash at all")
    assert not needs_rehash(hashed)
    assert needs_rehash("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$" + "A" * 43)


@pytest.mark.usefixtures("real_hashes")
async def test_hashing_does_not_block_the_event_loop() -> None:
    hashing = asyncio.gather(*(hash_password(PASSWORD) for _ in range(4)))
    loop = asyncio.get_running_loop()
    longest = 0.0
    while not hashing.done():
        start = loop.time()
        await asyncio.sleep(0.005)
        longest = max(longest, loop.time() - start)
    await hashing
    assert longest < 0.5


@pytest.mark.parametrize("known", [True, False])
async def test_too_many_concurrent_logins_get_503(
    client: httpx.AsyncClient, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All uses of Argon2 share the same threads, so that their number limits the memory: 64 MiB each."""
    if known:
        async with session_scope() as db:
            await create_user(db, "ada@example.com", SecretStr(PASSWORD))
    running = most = 0
    lock = threading.Lock()
    all_arrived = threading.Event()

    def waits_for_the_others(*_: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        all_arrived.wait(30)
        with lock:
            running -= 1
        return False

    monkeypatch.setattr(security, "_verify", waits_for_the_others)
    monkeypatch.setattr(security, "_threads", BoundedThreads("test", 2, max_waiting=3, max_wait=30))
    login = {"email": "ada@example.com", "password": PASSWORD}
    logins = [asyncio.create_task(client.post("/login", json=login)) for _ in range(12)]
    try:
        for refusal in itertools.islice(asyncio.as_completed(logins, timeout=30), 7):
            await refusal
    finally:
        all_arrived.set()
    responses = await asyncio.gather(*logins)
    refused = [response for response in responses if response.status_code == 503]
    assert sorted(response.status_code for response in responses) == [401] * 5 + [503] * 7
    assert {response.headers["Retry-After"] for response in refused} == {"5"}
    assert most == 2


def test_only_the_password_threads_use_argon2() -> None:
    """Hashing elsewhere could use too much memory when many users log in at the same time."""
    found = [file for file in (ROOT / "app").rglob("*.py") if "argon2" in file.read_text(encoding="utf-8")]
    assert [file.name for file in found] == ["security.py"]
    assert security._threads._threads == password_settings.hash_concurrency


async def test_concurrent_registrations_create_one_account() -> None:
    async def register() -> str:
        async with session_scope() as db:
            try:
                await create_user(db, "Ada@Example.com", SecretStr(PASSWORD))
            except EmailTaken:
                # The session can still be used.
                assert (await db.get(User, 0)) is None
                return "taken"
        return "made"

    results = await asyncio.gather(*(register() for _ in range(4)))
    assert sorted(results) == ["made", "taken", "taken", "taken"]


def test_the_text_of_a_request_hides_its_password() -> None:
    request = RegisterRequest(email="ada@example.com", password=SecretStr(PASSWORD))
    assert PASSWORD not in repr(request) + str(request.model_dump())
