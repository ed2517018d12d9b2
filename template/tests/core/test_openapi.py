"""GET /openapi.json documents all answers of routes, including errors."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI

from app.api import health
from app.core.config.application import app_settings
from app.core.config.base import SettingsGroup
from app.main import create_app

# A valid request for each route that validates its body before it needs an unreachable server.
BODIES: dict[str, Any] = {
    "/register": {"email": "ada@example.com", "password": "correct horse battery"},
    "/login": {"email": "ada@example.com", "password": "correct horse battery"},
    "/refresh": {"refresh_token": "x"},
    "/resend-verification": {"email": "ada@example.com"},
    "/verify-email": {"email": "ada@example.com", "code": "x"},
    "/forgot-password": {"email": "ada@example.com"},
    "/reset-password": {"email": "ada@example.com", "password": "correct horse battery", "code": "x"},
    "/change-password": {"current_password": "x", "new_password": "correct horse battery"},
    "/process-csv": {"file": "x"},
    "/thumbnails": {"file": "x"},
    "/reports": {"month": 1, "year": 2026},
    "/process": {},
    "/tasks/cancel": {"filter": {"name": "x"}},
    "/tasks/retry": {"filter": {"name": "x"}},
    "/dead-letters/replay": {},
    "/dead-letters/delete": {},
}

# RFC 9457, in the routes of the task API.
PROBLEM = "application/problem+json"


@pytest.fixture
def app() -> FastAPI:
    """Return the application."""
    return create_app()


def _operations(app: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


def _client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test")


def _log_in(app: FastAPI) -> None:
    """Let every request come from a user if the project has accounts, and to tasks from an operator."""
    access = sys.modules.get("app.api.task_access")
    if access is not None:
        app.dependency_overrides[access.operator_or_owner] = lambda: access.TaskViewer(None)
    current_user, models = (sys.modules.get(f"app.features.accounts.{name}") for name in ("deps", "models"))
    if current_user is None or models is None:
        return
    ada = models.User(id=7, email="ada@example.com", password_hash="x", is_verified=True, created_at=datetime.now(UTC))
    login = current_user.Login(ada, models.Session(id=1))
    for dependency in (current_user.current_login, current_user.optional_login):
        app.dependency_overrides[dependency] = lambda: login


def _set(monkeypatch: pytest.MonkeyPatch, variable: str, value: object) -> None:
    """Change a setting in this process if the project has it."""
    for module in list(sys.modules.values()):
        for group in list(vars(module).values()) if module.__name__.startswith("app.") else ():
            if isinstance(group, SettingsGroup):
                for field in type(group).model_fields:
                    if type(group).variable(field) == variable:
                        monkeypatch.setattr(group, field, value)


def _raising(error: Exception) -> Callable[..., Awaitable[None]]:
    async def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def _shape(schemas: dict[str, Any], status: int, answer: httpx.Response) -> None:
    """Check that an error answer has the documented form."""
    if answer.headers["content-type"] == PROBLEM:
        assert answer.json().keys() - {"errors"} == {"type", "title", "status", "detail"}
        assert (answer.json()["status"], "errors" in answer.json()) == (status, status == 422)
        return
    model = schemas["InvalidRequest" if status == 422 else "Refusal"]
    assert answer.json().keys() == model["properties"].keys(), answer.text
    detail = answer.json()["detail"]
    if status != 422:
        assert isinstance(detail, str)
        return
    assert detail
    for problem in detail:
        assert problem.keys() == schemas["Problem"]["properties"].keys(), answer.text


def test_an_error_answer_has_one_of_three_forms(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    assert {"HTTPValidationError", "ValidationError"}.isdisjoint(schemas)
    for method, path, operation in _operations(app):
        for status, answer in operation["responses"].items():
            if status >= "400" and PROBLEM not in answer["content"]:
                reference = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                assert reference in schemas
                assert (reference == "InvalidRequest") == (status == "422"), (method, path, status)


def test_common_error_answers_are_documented(app: FastAPI) -> None:
    for method, path, operation in _operations(app):
        expected: set[str] = set()
        if "requestBody" in operation:
            expected |= {"400", "413", "422"}
        if "security" in operation:
            expected |= {"401"}
        if "429" in operation["responses"]:
            expected |= {"503"}
        assert expected <= operation["responses"].keys(), (method, path)


REQUESTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no JSON": {"content": b"{", "headers": {"content-type": "application/json"}},
    "no text": {"content": b"\xff", "headers": {"content-type": "application/json"}},
    "another form": {"json": []},
    "too large": {"content": b"x" * 4096},
    "refused values": {
        "json": {
            "file": "../x",
            "month": 12,
            "year": 9999,
            "current_password": "x",
            "new_password": "ada@example.com",
        }
    },
}


@pytest.mark.parametrize(
    ("kind", "login"),
    [("nothing", False), ("another form", False), *((kind, True) for kind in REQUESTS if kind != "nothing")],
)
async def test_invalid_requests_are_answered_as_documented(
    kind: str, login: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "too large":
        monkeypatch.setattr(app_settings, "max_body_bytes", 1024)
        _set(monkeypatch, "STORAGE_MAX_UPLOAD_BYTES", 1024)
    _set(monkeypatch, "CELERY_PROCESS_WAIT", 0.1)
    app = create_app()
    if login:
        _log_in(app)
    schemas = app.openapi()["components"]["schemas"]
    async with _client(app) as client:
        for method, path, operation in _operations(app):
            url = path.replace("{", "").replace("}", "").replace("name", "..x" if kind == "refused values" else "name")
            request = REQUESTS[kind] if "requestBody" in operation else {}
            answer = await client.request(method, url, **request)
            assert str(answer.status_code) in operation["responses"], (method, path, answer.text)
            content = operation["responses"][str(answer.status_code)].get("content", {})
            assert not content or answer.headers["content-type"] in content, (method, path, answer.text)
            if answer.status_code in {400, 401, 404, 413, 422, 429}:
                _shape(schemas, answer.status_code, answer)
            if kind == "too large" and "requestBody" in operation:
                assert answer.status_code == 413, (method, path)
            # In development, everybody sees a task without an owner.
            if "security" in operation and not login and not path.startswith("/task"):
                # 403: without accounts, and no token for operators.
                refused = {401, 403} if answer.headers["content-type"] == PROBLEM else {401}
                assert answer.status_code in refused, (method, path)


async def test_routes_that_answer_503_during_outages_document_it(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _log_in(app)
    # A feature of this project may need a body that is not known here.
    known = [each for each in _operations(app) if "requestBody" not in each[2] or each[1] in BODIES or "{" in each[1]]
    documented = {(method, path) for method, path, operation in known if "503" in operation["responses"]}
    # Only loaded modules: projects have different features.
    if threads := sys.modules.get("app.core.threads"):
        # Queueing tasks and hashing passwords both use threads.
        monkeypatch.setattr(threads.BoundedThreads, "run", _raising(threads.ThreadsBusy("busy")))
    if rate_limit := sys.modules.get("app.features.accounts.complete.rate_limit"):
        down = sys.modules["redis.exceptions"].ConnectionError("down")
        monkeypatch.setattr(rate_limit.Limit, "count", _raising(down))
    if stores := sys.modules.get("obstore.store"):
        (tmp_path / "files").write_text("no folder")
        for name in ("routes", "quota"):
            if module := sys.modules.get(f"app.features.files.{name}"):
                monkeypatch.setattr(module, "store", lambda: stores.LocalStore(tmp_path))
    monkeypatch.setitem(health.checks, "database", _raising(ConnectionError("away")))
    answered = set()
    async with _client(app) as client:
        for method, path, _ in known:
            body = {"json": BODIES[path]} if path in BODIES else {}
            answer = await client.request(method, path.replace("{", "").replace("}", ""), **body)
            if answer.status_code == 503:
                answered.add((method, path))
    assert answered == documented
