"""Requests that schemathesis makes of the OpenAPI schema, to a server with real tasks: as an operator, as a user and without a login.

test_api_model.py copies this into a generated project and runs it there. No route may answer with a 500, or with a status, a content
type or a body that its schema does not have.
"""

import asyncio
import os
import secrets
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
import schemathesis
from celery import states
from celery.app.task import Context
from fastapi import Request
from hypothesis import HealthCheck, settings
from redis import Redis
from schemathesis.specs.openapi import checks as conformance

from app.core.celery import celery_app
from app.features.tasks.platform import cursors
from app.main import create_app
from app.tasks.process_task import process_task
from app.worker import dead_letters, paused_queues, schedule_control
from app.worker.broker import broker_client, results_client
from app.worker.history import Cursor
from tests.e2e.processes import start_api
from tests.worker.test_dead_letters import received

OPERATOR, PASSWORD, EMAIL = "operator", "correct horse battery", "ada@example.com"
TOKEN = secrets.token_urlsafe(32)
STATES = (*sorted(states.READY_STATES), "PENDING", "STARTED", "RETRY", "PROGRESS")
IDS = [f"{whose}-{state}" for whose in ("mine", "theirs") for state in STATES]
CHECKS = (
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
    conformance.response_headers_conformance,
)
EXAMPLES = int(os.environ.get("FORGE_MODEL_EXAMPLES", "15"))


def _served() -> Any:
    """Return the application; with accounts, a header makes a client an operator."""
    api = create_app()
    access = sys.modules["app.api.task_access"]
    if "app.features.accounts.models" in sys.modules:
        deps: Any = sys.modules["app.features.accounts.deps"]

        async def viewer(request: Request, user: deps.CurrentUser) -> Any:
            return access.TaskViewer(None) if OPERATOR in request.headers else await access.operator_or_owner(user)

        api.dependency_overrides[access.operator_or_owner] = viewer
    return api


api = _served()
has_accounts = bool(api.dependency_overrides)
documented = api.openapi()
PATHS = documented["paths"]
PUBLIC = [path for path, methods in PATHS.items() if not any("security" in operation for operation in methods.values())]
"""The paths without a login: those of accounts take a constant time each."""


def _schema(*, of_public: bool) -> Any:
    paths = {path: methods for path, methods in PATHS.items() if (path in PUBLIC) == of_public}
    schema = schemathesis.openapi.from_dict({**documented, "paths": paths})
    schema.config.phases.coverage.enabled = not of_public
    # Methods that no route has are no answer of a route.
    schema.config.phases.coverage.unexpected_methods = set()
    return schema


private, public = _schema(of_public=False), _schema(of_public=True)


@pytest.fixture(autouse=True)
def clean_state() -> None:
    """Keep the accounts, unlike the other tests."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "api.log"
    process, url = start_api(log, f"{__name__}:api", CELERY_PROCESS_WAIT="0.1", TASKS_OPERATOR_TOKEN=TOKEN)
    yield url
    process.stop()
    assert "Traceback" not in process.text(), process.text()[-5000:]


@pytest.fixture(scope="module")
def owner() -> str:
    """Return the owner name of the user."""
    if not has_accounts:
        return "everybody"
    from app.core.database import session_scope
    from app.features.accounts.models import User
    from app.features.accounts.security import hash_password

    async def add() -> int:
        async with session_scope() as db:
            user = User(email=EMAIL, password_hash=await hash_password(PASSWORD), is_verified=True)
            db.add(user)
            await db.flush()
            return int(user.id)

    return f"user-{asyncio.run(add())}"


@pytest.fixture
def known(owner: str) -> dict[str, list[str]]:
    """Store a task in each state for each of two owners, two dead letters and an entry of the schedule; return their names."""
    results_client().flushdb()
    with Redis.from_url(os.environ["REDIS_CONNECTION_URL"]) as cache:
        # The limits of logins.
        cache.flushdb()
    with broker_client() as client:
        client.flushdb()
        for task_id in IDS:
            _store(task_id, owner if task_id.startswith("mine") else "user-0")
        for number in range(2):
            dead_letters.keep(received({"n": number}), ValueError("x"))
        paused_queues.pause(client, "high")
        client.hset(schedule_control.ENTRIES, "nightly", '["process_task", "1 h", 1, true]')
        letters = [letter.letter_id for letter in dead_letters.letters(client)]
    return {"task_id": IDS, "letter_id": letters, "name": ["default", "high", "x"], "entry": ["nightly", "x"]}


def _store(task_id: str, owner: str) -> None:
    process_task.apply_async(({},), task_id=task_id, headers={"owner": owner})
    state = task_id.partition("-")[2]
    if state == states.PENDING:
        return
    delivery = {"routing_key": "default"}
    headers: dict[str, Any] = {"id": task_id, "task": process_task.name, "headers": {"owner": owner}, "owner": owner}
    request = Context(**headers, args=[{}], kwargs={}, hostname="w", delivery_info=delivery, timelimit=[None, None])
    celery_app.backend.store_result(task_id, {}, states.STARTED, request=request)
    value: Any = ValueError("\udcff") if state in states.EXCEPTION_STATES else {"number": float("inf")}
    celery_app.backend.store_result(task_id, value, state, request=request)


@pytest.fixture
def headers(who: str, server: str, known: dict[str, list[str]]) -> dict[str, str]:
    """Return what a client sends to be somebody."""
    if who == "nobody":
        return {}
    if not has_accounts:
        return {"Authorization": f"Bearer {TOKEN}"}
    login = httpx.post(f"{server}/login", json={"email": EMAIL, "password": PASSWORD})
    return {"Authorization": f"Bearer {login.json()['access_token']}", **({OPERATOR: "1"} if who == OPERATOR else {})}


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )


@pytest.mark.parametrize("who", ["operator", "user", "nobody"] if has_accounts else ["operator", "nobody"])
@private.parametrize()
@_settings(EXAMPLES)
def test_each_answer_is_as_documented(
    case: Any, server: str, headers: dict[str, str], known: dict[str, list[str]]
) -> None:
    check(case, server, headers, known)


@public.parametrize()
@_settings(max(1, EXAMPLES // 8))
def test_each_answer_without_a_login_is_as_documented(case: Any, server: str, known: dict[str, list[str]]) -> None:
    check(case, server, {}, known)


def check(case: Any, server: str, headers: dict[str, str], known: dict[str, list[str]]) -> None:
    """Make a request, and judge its answer."""
    for name, made in (case.path_parameters or {}).items():
        number = zlib.crc32(str(made).encode(errors="replace"))
        # As often as not a name that exists.
        if name in known and number % 2:
            names = known[name]
            if case.path.endswith("/events"):
                # The stream of an unfinished task has no end.
                names = [one for one in names if one.partition("-")[2] in states.READY_STATES]
            case.path_parameters[name] = names[number // 2 % len(names)]
    cursor = (case.query or {}).get("cursor") if isinstance(case.query, dict) else None
    if isinstance(cursor, str) and cursor:
        number = zlib.crc32(cursor.encode(errors="replace"))
        case.query["cursor"] = cursors.encode(Cursor(number * number, cursor if number % 2 else IDS[number % len(IDS)]))
    response = case.call(base_url=server, headers=headers, timeout=20)
    assert response.status_code != 500, response.text
    case.validate_response(response, checks=CHECKS)
