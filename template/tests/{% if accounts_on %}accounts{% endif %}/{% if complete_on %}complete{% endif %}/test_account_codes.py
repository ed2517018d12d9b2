"""Registration, verification of addresses and password resets."""

import asyncio
import functools
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
from celery.canvas import Signature
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import session_scope
from app.features.accounts.complete import after_commit, codes, constant_time, registration
from app.features.accounts.complete import routes as accounts
from app.features.accounts.complete.codes import use_code
from app.features.accounts.complete.config import code_settings
from app.features.accounts.complete.models import AccountCode, AccountRegistration
from app.features.accounts.models import Session, User
from app.features.accounts.security import verify_password
from app.tasks import account_mail_tasks
from app.worker.after_commit import hold
from app.worker.publish import QueueUnavailable
from tests.accounts.complete.people import ADA, OTHER, add_user, bearer, code_for, get_user, log_in, registration_codes

pytestmark = pytest.mark.anyio

NOBODY = "nobody@example.com"


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Respond without the delay of constant-time routes."""
    monkeypatch.setattr(constant_time, "SECONDS", 0)


async def test_using_the_code_of_a_registration_creates_the_account(client: httpx.AsyncClient) -> None:
    response = await client.post("/register", json={**ADA, "email": "Ada@Example.com"})
    assert response.status_code == 202, response.text
    async with session_scope() as db:
        assert (await db.scalars(select(User))).all() == []
    refused = await client.post("/login", json=ADA)
    assert (refused.status_code, "/verify-email" in refused.text) == (403, True)
    assert (await client.post("/login", json={**ADA, "password": OTHER})).status_code == 401
    (code,) = await registration_codes()
    for status in (200, 400):
        assert (await client.post("/verify-email", json={**ADA, "code": code})).status_code == status
    user = await get_user()
    assert user.is_verified
    assert await verify_password(ADA["password"], user.password_hash)
    await log_in(client)


async def test_responses_do_not_reveal_whether_an_address_exists(client: httpx.AsyncClient) -> None:
    await add_user()
    for path, body in (
        ("/register", {"password": OTHER}),
        ("/resend-verification", {}),
        ("/forgot-password", {}),
        ("/verify-email", {"code": "ABCDEFGH"}),
        ("/reset-password", {"code": "ABCDEFGH", "password": OTHER}),
        # With the password of the registration above, which must not reveal the account either, and with another one.
        ("/login", {"password": OTHER}),
        ("/login", {"password": f"{OTHER}!"}),
    ):
        known, unknown = [await client.post(path, json={"email": email, **body}) for email in (ADA["email"], NOBODY)]
        assert (known.status_code, known.text) == (unknown.status_code, unknown.text), path
        # Otherwise a client sees only the date and length of the response.
        assert set(known.headers) == set(unknown.headers)


async def test_responses_take_the_same_time_without_anything_to_write(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constant_time, "SECONDS", 0.5)
    for path, status in (("/register", 202), ("/verify-email", 400), ("/reset-password", 400)):
        start = time.perf_counter()
        response = await client.post(path, json={**ADA, "code": "ABCDEFGH"})
        assert (response.status_code, time.perf_counter() - start > 0.49) == (status, True), path


async def test_a_wrong_code_leaves_no_row_locked() -> None:
    await add_user(is_verified=False)
    await code_for("verify")
    async with session_scope() as db:
        assert await use_code(db, ADA["email"], "verify", "AAAAAAAA") is None
        assert not db.in_transaction()


async def test_register_does_not_change_a_verified_account(client: httpx.AsyncClient) -> None:
    before = await add_user()
    assert (await client.post("/register", json={**ADA, "password": OTHER})).status_code == 202
    assert (await get_user()).password_hash == before.password_hash
    async with session_scope() as db:
        assert await db.scalar(select(func.count()).select_from(User)) == 1


@pytest.mark.parametrize("owner", [0, 1], ids=["owner first", "stranger first"])
async def test_a_code_sets_the_password_of_its_own_registration(client: httpx.AsyncClient, owner: int) -> None:
    """Another person's registration, earlier or later, must not set the password of the owner's account."""
    passwords = [OTHER, OTHER]
    passwords[owner] = ADA["password"]
    for password in passwords:
        assert (await client.post("/register", json={**ADA, "password": password})).status_code == 202
    codes = await registration_codes()
    response = await client.post("/verify-email", json={"email": ADA["email"], "code": codes[owner]})
    assert response.status_code == 200, response.text
    await log_in(client)
    # The same as before the verification, so that the response does not reveal it.
    assert (await client.post("/login", json={**ADA, "password": OTHER})).status_code == 403
    other = await client.post("/verify-email", json={"email": ADA["email"], "code": codes[1 - owner]})
    assert other.status_code == 400
    assert (await client.post("/login", json={**ADA, "password": OTHER})).status_code == 403
    await log_in(client)


@pytest.mark.parametrize("order", ["registered after", "registered before"])
async def test_a_registration_does_not_set_the_password_of_an_existing_account(
    client: httpx.AsyncClient, order: str
) -> None:
    if order == "registered before":
        await client.post("/register", json={**ADA, "password": OTHER})
    await add_user()
    if order == "registered after":
        await client.post("/register", json={**ADA, "password": OTHER})
    (code,) = await registration_codes()
    assert (await client.post("/verify-email", json={"email": ADA["email"], "code": code})).status_code == 400
    await log_in(client)


async def test_an_unused_account_gets_the_password_of_the_registration(client: httpx.AsyncClient) -> None:
    """Earlier releases created the account at the registration."""
    await add_user(is_verified=False)
    await client.post("/register", json={**ADA, "password": OTHER})
    (code,) = await registration_codes()
    assert (await client.post("/verify-email", json={"email": ADA["email"], "code": code})).status_code == 200
    assert (await client.post("/login", json=ADA)).status_code == 401
    await log_in(client, password=OTHER)


async def test_a_login_reports_an_unverified_address_only_after_the_correct_password(client: httpx.AsyncClient) -> None:
    await add_user(is_verified=False)
    responses = [await client.post("/login", json={**ADA, "password": word}) for word in (ADA["password"], OTHER)]
    assert [response.status_code for response in responses] == [403, 401]
    assert "not verified" in responses[0].text
    assert "verified" not in responses[1].text


async def test_of_concurrent_uses_of_a_registration_one_succeeds(client: httpx.AsyncClient) -> None:
    await client.post("/register", json=ADA)
    (code,) = await registration_codes()
    body = {"email": ADA["email"], "code": code}
    responses = await asyncio.gather(*(client.post("/verify-email", json=body) for _ in range(4)))
    assert sorted(response.status_code for response in responses) == [200, 400, 400, 400]


async def test_a_registration_expires(client: httpx.AsyncClient) -> None:
    await client.post("/register", json=ADA)
    (code,) = await registration_codes()
    async with session_scope() as db:
        await db.execute(update(AccountRegistration).values(expires_at=datetime.now(UTC)))
    assert (await client.post("/verify-email", json={"email": ADA["email"], "code": code})).status_code == 400
    assert (await client.post("/login", json=ADA)).status_code == 401
    await client.post("/register", json=ADA)
    async with session_scope() as db:
        assert await db.scalar(select(func.count()).select_from(AccountRegistration)) == 1


async def test_register_does_not_change_an_unverified_account_that_was_used(
    client: httpx.AsyncClient,
) -> None:
    before = await add_user(is_verified=False)
    async with session_scope() as db:
        await db.execute(update(User).values(last_activity=datetime.now(UTC)))
    assert (await client.post("/register", json={**ADA, "password": OTHER})).status_code == 202
    assert (await get_user()).password_hash == before.password_hash


async def test_concurrent_registrations_all_succeed(client: httpx.AsyncClient) -> None:
    responses = await asyncio.gather(*(client.post("/register", json=ADA) for _ in range(4)))
    assert {response.status_code for response in responses} == {202}
    assert len(await registration_codes()) == 4


@pytest.mark.parametrize(
    ("path", "before"), [("/register", 0), ("/verify-email", 1), ("/reset-password", 1), ("/change-password", 1)]
)
async def test_nothing_is_queued_if_the_commit_fails(
    client: httpx.AsyncClient, path: str, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`before` is the number of earlier commits of the route: the number of attempts, or the end of a query."""
    if path != "/register":
        await add_user()
    headers = bearer(await log_in(client)) if path == "/change-password" else {}
    code = await code_for("reset" if path == "/reset-password" else "verify") if path != "/register" else ""
    body = {**ADA, "code": code, "current_password": ADA["password"], "new_password": OTHER}
    queued = []
    left = before

    async def note(signature: object, **options: Any) -> None:
        if session := options.get("after_commit"):
            hold(session, functools.partial(note, signature))
        else:
            queued.append(signature)

    async def fail(db: AsyncSession) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("the database is down")
        await commit(db)

    commit = AsyncSession.commit
    for module in (accounts, after_commit):
        monkeypatch.setattr(module, "enqueue", note)
    with monkeypatch.context() as patch:
        patch.setattr(AsyncSession, "commit", fail)
        with pytest.raises(RuntimeError, match="is down"):
            await client.post(path, json=body, headers=headers)
    assert queued == []
    # Nothing was saved either: the same request succeeds now.
    assert (await client.post(path, json=body, headers=headers)).is_success
    assert len(queued) == 1


@pytest.mark.parametrize("name", ["mail_registration", "mail_verification", "mail_password_reset"])
async def test_no_code_is_mailed_if_its_commit_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_user(is_verified=False)
    queued = []

    async def note(signature: object) -> None:
        queued.append(signature)

    async def fail(_: AsyncSession) -> None:
        raise RuntimeError("the database is down")

    monkeypatch.setattr(account_mail_tasks, "enqueue", note)
    task = getattr(account_mail_tasks, name)
    with monkeypatch.context() as patch:
        patch.setattr(AsyncSession, "commit", fail)
        with pytest.raises(RuntimeError, match="is down"):
            await asyncio.to_thread(task.apply, (ADA["email"],), throw=True)
    assert queued == []
    await asyncio.to_thread(task.apply, (ADA["email"],), throw=True)
    assert len(queued) == 1


async def test_saved_changes_remain_if_the_mail_cannot_be_queued(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise QueueUnavailable

    monkeypatch.setattr(after_commit, "enqueue", fail)
    await add_user(is_verified=False)
    code = await code_for("verify")
    assert (await client.post("/verify-email", json={"email": ADA["email"], "code": code})).status_code == 200
    assert (await get_user()).is_verified


@pytest.mark.parametrize("written", ["{}", " {} ", "lower", "hyphen"])
async def test_a_code_is_single_use(client: httpx.AsyncClient, written: str) -> None:
    await add_user(is_verified=False)
    code = await code_for("verify")
    assert re.fullmatch("[A-HJKMNP-Z2-9]{8}", code)
    shown = {"lower": code.lower(), "hyphen": f"{code[:4]}-{code[4:]}"}.get(written) or written.format(code)
    body = {"email": ADA["email"], "code": shown}
    assert (await client.post("/verify-email", json=body)).status_code == 200
    assert (await get_user()).is_verified
    assert (await client.post("/verify-email", json=body)).status_code == 400


async def test_codes_are_stored_hashed(client: httpx.AsyncClient) -> None:
    await add_user(is_verified=False)
    code = await code_for("verify")
    async with session_scope() as db:
        stored = (await db.scalars(select(AccountCode))).one()
    assert code not in str(vars(stored))
    assert re.fullmatch("[0-9a-f]{64}", stored.code_hash)


@pytest.mark.parametrize("kind", ["account", "registration"])
async def test_too_many_wrong_codes_invalidate_the_code(
    client: httpx.AsyncClient, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (codes, registration):
        monkeypatch.setattr(module, "TRIES", 5)

    async def mailed() -> str:
        return await code_for("verify") if kind == "account" else (await registration_codes())[0]

    if kind == "account":
        await add_user(is_verified=False)
    else:
        await client.post("/register", json=ADA)
    code = await mailed()
    wrong = {"email": ADA["email"], "code": "AAAAAAAA"}
    # Concurrent ones too: after the last allowed attempt, even the correct code is rejected.
    await asyncio.gather(*(client.post("/verify-email", json=wrong) for _ in range(7)))
    table = AccountCode if kind == "account" else AccountRegistration
    async with session_scope() as db:
        assert await db.scalar(select(table.tries)) == 5
    assert (await client.post("/verify-email", json={**wrong, "code": code})).status_code == 400
    assert (await client.post("/verify-email", json={**wrong, "code": await mailed()})).status_code == 200


async def test_of_concurrent_uses_of_a_code_one_succeeds(client: httpx.AsyncClient) -> None:
    await add_user()
    body = {**ADA, "password": OTHER, "code": await code_for("reset")}
    responses = await asyncio.gather(*(client.post("/reset-password", json=body) for _ in range(4)))
    assert sorted(response.status_code for response in responses) == [200, 400, 400, 400]


async def test_a_code_is_valid_only_for_its_purpose_and_user_until_it_expires(client: httpx.AsyncClient) -> None:
    await add_user(is_verified=False)
    await add_user("eve@example.com", is_verified=False)
    code = await code_for("verify")
    reset = {**ADA, "password": OTHER, "code": code}
    assert (await client.post("/reset-password", json=reset)).status_code == 400
    await code_for("verify", "eve@example.com")
    other = {"email": "eve@example.com", "code": code}
    assert (await client.post("/verify-email", json=other)).status_code == 400
    async with session_scope() as db:
        await db.execute(update(AccountCode).values(expires_at=datetime.now(UTC)))
    own = {"email": ADA["email"], "code": code}
    assert (await client.post("/verify-email", json=own)).status_code == 400
    left = timedelta(seconds=code_settings.expiration)
    await code_for("verify")
    async with session_scope() as db:
        expires = await db.scalar(select(func.max(AccountCode.expires_at)))
    assert expires is not None
    assert left - timedelta(minutes=1) < expires - datetime.now(UTC) <= left


async def test_a_new_code_replaces_the_previous_one(client: httpx.AsyncClient) -> None:
    await add_user(is_verified=False)
    first, second = await code_for("verify"), await code_for("verify")
    for code, status in ((first, 400), (second, 200)):
        response = await client.post("/verify-email", json={"email": ADA["email"], "code": code})
        assert response.status_code == status


async def test_a_reset_sets_the_password_and_ends_all_logins(client: httpx.AsyncClient) -> None:
    await add_user(is_verified=False)
    async with session_scope() as db:
        await db.execute(update(User).values(is_verified=True))
    tokens = await log_in(client)
    async with session_scope() as db:
        await db.execute(update(User).values(is_verified=False))
    await code_for("verify")
    body = {**ADA, "password": OTHER, "code": await code_for("reset")}
    response = await client.post("/reset-password", json=body)
    assert response.status_code == 200, response.text
    assert (await get_user()).is_verified, "the user has read a mail to this address"
    assert (await client.get("/users/me", headers=bearer(tokens))).status_code == 401
    async with session_scope() as db:
        assert await db.scalar(select(func.count()).select_from(AccountCode)) == 0
        assert await db.scalar(select(func.count()).select_from(Session)) == 0
    assert (await client.post("/login", json=ADA)).status_code == 401
    await log_in(client, password=OTHER)


@pytest.mark.parametrize("password", ["short", ADA["email"], "x" * 129])
async def test_all_routes_apply_the_password_rules(client: httpx.AsyncClient, password: str) -> None:
    await add_user()
    code = await code_for("reset")
    responses = [
        await client.post("/register", json={**ADA, "password": password}),
        await client.post("/reset-password", json={**ADA, "password": password, "code": code}),
        await client.post(
            "/change-password",
            json={"current_password": ADA["password"], "new_password": password},
            headers=bearer(await log_in(client)),
        ),
    ]
    assert [response.status_code for response in responses] == [422] * 3
    await log_in(client)


async def test_a_blocked_account_cannot_use_a_code(client: httpx.AsyncClient) -> None:
    await add_user()
    code = await code_for("reset")
    async with session_scope() as db:
        await db.execute(update(User).values(is_active=False))
    body = {**ADA, "password": OTHER, "code": code}
    assert (await client.post("/reset-password", json=body)).status_code == 400


async def test_a_code_is_mailed_to_the_stored_address(monkeypatch: pytest.MonkeyPatch) -> None:
    queued: list[tuple[str, ...]] = []

    async def note(signature: Signature[Any]) -> None:
        queued.append(signature.args)

    monkeypatch.setattr(account_mail_tasks, "enqueue", note)
    await add_user(is_verified=False)
    for task in (account_mail_tasks.mail_registration, account_mail_tasks.mail_password_reset):
        await asyncio.to_thread(task.apply, ("ADA@example.com",), throw=True)
    assert [email for email, _ in queued] == [ADA["email"]] * 2


async def test_each_registration_gets_its_own_code(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    mails: list[tuple[str, ...]] = []
    queued: list[Signature[Any]] = []

    async def note(signature: Signature[Any], **_: object) -> None:
        queued.append(signature)

    async def mail(signature: Signature[Any]) -> None:
        mails.append((signature.task, *signature.args))

    monkeypatch.setattr(accounts, "enqueue", note)
    monkeypatch.setattr(account_mail_tasks, "enqueue", mail)
    for password in (ADA["password"], OTHER):
        await client.post("/register", json={**ADA, "email": "Ada@Example.com", "password": password})
    for signature in queued:
        await asyncio.to_thread(account_mail_tasks.mail_registration.apply, signature.args, throw=True)
    assert [mail[:2] for mail in mails] == [("send_verification_email", ADA["email"])] * 2
    await asyncio.to_thread(account_mail_tasks.mail_verification.apply, (ADA["email"],), throw=True)
    assert len(mails) == 4
    # Codes are sent again, for the newest registration first; the earlier codes are invalid.
    assert (await client.post("/verify-email", json={**ADA, "code": mails[0][2]})).status_code == 400
    assert (await client.post("/verify-email", json={**ADA, "code": mails[3][2]})).status_code == 200
    await log_in(client)
    for task, arguments in (("mail_registration", queued[1].args), ("mail_verification", (ADA["email"],))):
        await asyncio.to_thread(getattr(account_mail_tasks, task).apply, arguments, throw=True)
    assert mails[4:] == [("send_account_exists", "Ada@example.com")]


def test_the_tasks_do_not_reveal_what_they_find() -> None:
    for name in ("mail_registration", "mail_verification", "mail_password_reset"):
        task = getattr(account_mail_tasks, name)
        assert (task.name, task.ignore_result, task.redact_arguments) == (name, True, True)
