"""POST /tasks: clients queue the tasks that allow it, with arguments that fit their parameters."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from kombu.utils.json import loads
from pydantic import BaseModel, Field, HttpUrl, SecretStr

from app.api.owner import current_owner
from app.api.task_access import TaskViewer, operator_or_owner
from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.features.tasks.platform.submission import submission_router, submittable
from app.tasks.process_task import process_task
from app.worker import history
from app.worker.broker import broker_client, results_client
from app.worker.flow_control import Rate, Unique
from app.worker.status import read_status
from tests.worker.fixtures import Drain

pytestmark = pytest.mark.anyio


class Paper(StrEnum):
    """A format."""

    A4 = "a4"


class Part(BaseModel):
    """A part of a report."""

    title: str = Field(max_length=20)
    pages: int = 1


class Order(BaseModel):
    """What a task with `pydantic=True` gets."""

    page: HttpUrl
    due: datetime = Field(alias="dueAt")
    paper: Paper = Paper.A4
    reference: UUID = Field(default_factory=uuid4)


class Login(BaseModel):
    """What JSON does not keep."""

    token: SecretStr


class Visit(BaseModel):
    """What kombu's JSON keeps."""

    at: datetime
    user: UUID


def _log_in(login: Login | None = None) -> None:
    """Log in."""


def _count(visit: Visit) -> None:
    """Count a visit."""


async def _charge(order: Order, since: datetime | None = None) -> str:
    """Charge an order."""
    assert isinstance(order, Order)
    assert isinstance(since, datetime)
    return f"{order.page} {order.due:%Y} {order.paper.value} {since:%Y}"


def _render(month: Annotated[int, Field(ge=1, le=12)], parts: list[Part], *, paper: Paper = Paper.A4) -> str:
    """Render a report.

    It takes a minute.
    """
    return ""


def _moment(json: datetime, copy: Any = None, _hidden: int = 0) -> None:
    """Do something at a time."""


def _nothing() -> None:
    """Do nothing."""


@pytest.fixture
def tasks() -> Iterator[dict[str, Any]]:
    """Give tasks by their names."""
    made: dict[str, Any] = {
        "probe.render": celery_app.task(name="probe.render", submit=True)(_render),
        "probe.charge": celery_app.task(name="probe.charge", submit=True, pydantic=True)(_charge),
        "probe.login": celery_app.task(name="probe.login", submit=True, pydantic=True)(_log_in),
        "probe.count": celery_app.task(name="probe.count", submit=True)(_count),
        "probe.moment": celery_app.task(name="probe.moment", submit=True, queue_name="long")(_moment),
        "probe.nothing": celery_app.task(name="probe.nothing", submit=True)(_nothing),
        "probe.unique": celery_app.task(name="probe.unique", submit=True, unique=Unique())(_nothing),
        "probe.limited": celery_app.task(name="probe.limited", submit=True, rate=Rate(1, 60))(_nothing),
    }
    yield made
    for task in made.values():
        celery_app.tasks.unregister(task)


@pytest.fixture
async def http(tasks: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of an API that queues these tasks for the user `user-1`."""
    api = FastAPI()
    api.include_router(submission_router(tasks.values()))
    api.dependency_overrides = {
        operator_or_owner: lambda: TaskViewer("user-1"),
        current_owner: lambda: "user-1",
    }
    _empty()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        yield client
    _empty()


def _empty() -> None:
    results_client().flushdb()
    with broker_client() as client:
        client.flushdb()


def _queued() -> list[dict[str, Any]]:
    with broker_client() as client:
        lists = [key for key in client.keys("*") if client.type(key) == b"list"]
        return [json.loads(text) for key in lists for text in reversed(client.lrange(key, 0, -1))]


async def _submit(
    http: httpx.AsyncClient, status: int, task: str, arguments: Any = None, key: str | None = None, **more: Any
) -> Any:
    body = {"task": task, **({} if arguments is None else {"arguments": arguments}), **more}
    response = await http.post("/tasks", json=body, headers={"Idempotency-Key": key} if key else {})
    assert response.status_code == status, response.text
    if status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
    return response.json()


REPORT = {"month": 11, "parts": [{"title": "a"}]}


async def test_a_task_is_queued_for_the_user(http: httpx.AsyncClient) -> None:
    response = await http.post("/tasks", json={"task": "probe.render", "arguments": REPORT, "queue": "long"})
    task_id = response.json()["task_id"]
    assert (response.status_code, response.headers["Location"]) == (202, f"/tasks/{task_id}")
    record = history.read(task_id)
    assert record is not None
    assert (record.state, record.owner, record.queue, record.args) == ("PENDING", "user-1", "long", "()")
    assert record.kwargs == "{'month': 11, 'parts': [{'title': 'a'}]}"
    status = read_status(task_id)
    assert status is not None
    assert status.owner == "user-1"


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({}, ["month"]),
        ({**REPORT, "month": 13}, ["month"]),
        ({**REPORT, "parts": [{"title": "x" * 21}]}, ["parts", 0, "title"]),
        ({**REPORT, "paper": "a3"}, ["paper"]),
        ({**REPORT, "more": 1}, ["more"]),
        ([], []),
        ("x", []),
    ],
    ids=str,
)
async def test_arguments_that_do_not_fit_the_parameters_are_a_422(
    http: httpx.AsyncClient, arguments: Any, where: list[Any]
) -> None:
    problem = await _submit(http, 422, "probe.render", arguments)
    assert problem["errors"][0]["loc"] == ["body", "probe.render", "arguments", *where]
    assert "input" not in problem["errors"][0]
    assert _queued() == []


@pytest.mark.parametrize(
    "body",
    [
        {"task": "other"},
        {},
        {"task": "probe.nothing", "queue": "other"},
        {"task": "probe.nothing", "countdown": -1},
        {"task": "probe.nothing", "countdown": 86401},
        {"task": "probe.nothing", "countdown": "NaN"},
        {"task": "probe.nothing", "eta": "2026-11-27T08:00:00"},
        {"task": "probe.nothing", "eta": "2999-01-01T00:00:00Z"},
        {"task": "probe.nothing", "eta": "2026-11-27T08:00:00Z", "countdown": 1},
        {"task": "probe.nothing", "priority": 0},
        {"task": "probe.nothing", "arguments": None},
    ],
    ids=str,
)
async def test_an_invalid_request_is_a_422(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await http.post("/tasks", json=body)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert _queued() == []


async def test_a_task_without_submit_cannot_be_queued(http: httpx.AsyncClient) -> None:
    await _submit(http, 422, process_task.name, {"data": {}})
    assert submission_router([]).routes == []


async def test_keys_that_kombu_reserves_are_a_422(http: httpx.AsyncClient) -> None:
    reserved = {"json": datetime.now(UTC).isoformat(), "copy": {"__type__": "uuid", "__value__": "x"}}
    for key in (None, "k"):
        problem = await _submit(http, 422, "probe.moment", reserved, key)
        assert "reserved" in problem["errors"][0]["msg"]
    assert _queued() == []


async def test_parameters_may_have_any_name_and_keep_their_types(http: httpx.AsyncClient) -> None:
    await _submit(http, 202, "probe.moment", {"json": "2026-11-27T08:00:00+01:00", "copy": [1.5], "_hidden": 2})
    (message,) = _queued()
    assert message["headers"]["kwargsrepr"].startswith("{'json': datetime.datetime(2026, 11, 27, 8, 0, tzinfo=")
    assert message["properties"]["delivery_info"]["routing_key"] == "long"


async def test_a_task_with_pydantic_gets_the_model(http: httpx.AsyncClient, drain: Drain) -> None:
    order = {"page": "https://shop.example/7", "dueAt": "2026-11-27T08:00:00Z"}
    queued = await _submit(http, 202, "probe.charge", {"order": order, "since": "2025-01-01T00:00:00Z"})
    drain()
    status = read_status(queued["task_id"])
    assert status is not None
    assert (status.status, status.result) == ("SUCCESS", "https://shop.example/7 2026 a4 2025")
    await _submit(http, 422, "probe.charge", {"order": {**order, "page": "7"}})


async def test_a_model_that_json_does_not_keep_is_a_422(http: httpx.AsyncClient) -> None:
    for key in (None, "k"):
        problem = await _submit(http, 422, "probe.login", {"login": {"token": "hidden"}}, key)
        assert problem["errors"][0]["loc"] == ["body", "arguments", "login"]
        assert "hidden" not in json.dumps(problem)
    assert _queued() == []
    await _submit(http, 202, "probe.login")


async def test_a_model_of_a_task_without_pydantic_keeps_its_types(http: httpx.AsyncClient) -> None:
    await _submit(http, 202, "probe.count", {"visit": {"at": "2026-11-27T08:00:00Z", "user": str(UUID(int=7))}})
    (message,) = _queued()
    _, kwargs, _ = loads(base64.b64decode(message["body"]))
    assert kwargs == {"visit": {"at": datetime(2026, 11, 27, 8, tzinfo=UTC), "user": UUID(int=7)}}


async def test_a_task_without_parameters_needs_no_arguments(http: httpx.AsyncClient) -> None:
    for arguments in (None, dict[str, Any]()):
        await _submit(http, 202, "probe.nothing", arguments)
    assert len(_queued()) == 2


async def test_a_countdown_and_an_eta_delay_the_task(http: httpx.AsyncClient) -> None:
    eta = datetime.now(UTC) + timedelta(hours=1)
    ids = [
        (await _submit(http, 202, "probe.nothing", countdown=3600))["task_id"],
        (await _submit(http, 202, "probe.nothing", eta=eta.isoformat()))["task_id"],
    ]
    for task_id in ids:
        record = history.read(task_id)
        assert record is not None
        assert abs(datetime.fromisoformat(record.eta or "") - eta) < timedelta(seconds=30)


async def test_an_eta_in_the_past_starts_at_once(http: httpx.AsyncClient) -> None:
    await _submit(http, 202, "probe.nothing", eta="0001-01-01T00:00:00+14:00", key="k")
    assert _queued()[0]["headers"]["eta"] is None


# --- Idempotency-Key ---


async def test_the_same_key_and_body_have_the_same_answer(http: httpx.AsyncClient) -> None:
    answers = [await _submit(http, 202, "probe.render", REPORT, "k") for _ in range(2)]
    answers += await asyncio.gather(*(_submit(http, 202, "probe.render", REPORT, "k") for _ in range(10)))
    assert len({answer["task_id"] for answer in answers}) == len(_queued()) == 1
    assert all(answer == answers[0] for answer in answers)


async def test_of_two_at_once_one_is_queued(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(_submit(http, 202, "probe.nothing", None, "at once") for _ in range(15)))
    assert [message["headers"]["id"] for message in _queued()] == [answers[0]["task_id"]]


@pytest.mark.parametrize(
    "other",
    [
        {"task": "probe.render", "arguments": {**REPORT, "month": 12}},
        {"task": "probe.render", "arguments": REPORT, "queue": "long"},
        {"task": "probe.render", "arguments": REPORT, "countdown": 1},
        {"task": "probe.nothing"},
    ],
    ids=str,
)
async def test_the_same_key_with_another_body_is_a_409(http: httpx.AsyncClient, other: dict[str, Any]) -> None:
    await _submit(http, 202, "probe.render", REPORT, "k")
    await _submit(http, 409, key="k", **other)
    assert len(_queued()) == 1


async def test_another_user_may_use_the_same_key(http: httpx.AsyncClient) -> None:
    first = await _submit(http, 202, "probe.nothing", None, "k")
    api: Any = http._transport
    api.app.dependency_overrides[current_owner] = lambda: "user-2"
    assert (await _submit(http, 202, "probe.nothing", None, "k"))["task_id"] != first["task_id"]


async def test_a_key_is_kept_for_a_day(http: httpx.AsyncClient) -> None:
    await _submit(http, 202, "probe.nothing", None, "k")
    with broker_client() as client:
        (key,) = client.keys("idempotency/*")
        assert 86_000 < client.ttl(key) <= 86_400


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_of_another_length_is_a_422(http: httpx.AsyncClient, key: str) -> None:
    response = await http.post("/tasks", json={"task": "probe.nothing"}, headers={"Idempotency-Key": key})
    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["header", "Idempotency-Key"])


# --- limits ---


async def test_a_limit_is_a_429_that_does_not_use_up_the_key(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 1)
    await _submit(http, 202, "probe.nothing")
    await _submit(http, 429, "probe.nothing", None, "k")
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 10)
    await _submit(http, 202, "probe.nothing", None, "k")
    monkeypatch.setattr(celery_settings, "max_queue_depth", 2)
    for key in (None, "other"):
        assert "already wait in the queue" in (await _submit(http, 429, "probe.nothing", None, key))["detail"]


async def test_a_call_over_its_rate_is_a_429(http: httpx.AsyncClient) -> None:
    await _submit(http, 202, "probe.limited")
    response = await http.post("/tasks", json={"task": "probe.limited"})
    assert (response.status_code, response.headers["content-type"]) == (429, "application/problem+json")
    assert 0 < int(response.headers["Retry-After"]) <= 60


async def test_a_second_call_of_a_unique_task_is_answered_with_the_first(http: httpx.AsyncClient) -> None:
    first = await _submit(http, 202, "probe.unique")
    for key in (None, "k", "k"):
        assert await _submit(http, 202, "probe.unique", None, key) == first
    assert len(_queued()) == 1
    celery_app.backend.store_result(first["task_id"], None, "SUCCESS")
    assert await _submit(http, 202, "probe.unique", None, "k") == first
    assert await _submit(http, 202, "probe.unique") != first


# --- OpenAPI ---


async def test_openapi_shows_the_parameters_of_each_task(tasks: dict[str, Any]) -> None:
    api = FastAPI()
    api.include_router(submission_router(tasks.values()))
    document = api.openapi()
    schemas = document["components"]["schemas"]
    body = document["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["discriminator"]["mapping"]["probe.render"] == "#/components/schemas/SubmitProbeRender"
    assert schemas["SubmitProbeRender"]["description"].startswith("Render a report.")
    assert schemas["SubmitProbeRender"]["required"] == ["task", "arguments"]
    arguments = schemas["ProbeRenderArguments"]
    assert (arguments["required"], arguments["additionalProperties"]) == (["month", "parts"], False)
    assert arguments["properties"]["month"] == {"maximum": 12, "minimum": 1, "title": "Month", "type": "integer"}
    assert arguments["properties"]["parts"]["items"] == {"$ref": "#/components/schemas/Part"}
    assert arguments["properties"]["paper"]["default"] == "a4"
    queues = schemas["SubmitProbeNothing"]["properties"]["queue"]["anyOf"][0]["enum"]
    assert queues == ["high", "default", "long"]
    assert schemas["SubmitProbeNothing"]["required"] == ["task"]
    responses = document["paths"]["/tasks"]["post"]["responses"]
    assert {"202", "400", "401", "403", "409", "422", "429", "503"} <= responses.keys()


async def test_the_application_queues_the_tasks_of_this_project_that_allow_it(app: FastAPI) -> None:
    names = {task.name for task in submittable()}
    assert process_task.name in names
    schemas = app.openapi()["components"]["schemas"]
    shown = [
        schema["properties"]["task"]["const"]
        for name, schema in schemas.items()
        if name.startswith("Submit") and "task" in schema["properties"] and "const" in schema["properties"]["task"]
    ]
    assert set(shown) == names


def _positional(*values: int) -> None:
    """Do nothing."""


def _any(**values: int) -> None:
    """Do nothing."""


@pytest.mark.parametrize("function", [_positional, _any])
async def test_parameters_without_a_name_are_refused_at_the_start(function: Any) -> None:
    task = celery_app.task(name="test.unnamed", submit=True)(function)
    try:
        with pytest.raises(ValueError, match=r"test\.unnamed: submit=True needs parameters with names"):
            submission_router([task])
    finally:
        celery_app.tasks.unregister(task)


async def test_a_bound_and_an_async_task_are_queued_by_their_own_parameters() -> None:
    async def fetch(url: str) -> None:
        """Fetch."""

    def bound(self: Any, number: int) -> None:
        """Count."""

    made: list[Any] = [
        celery_app.task(name="test.fetch", submit=True)(fetch),
        celery_app.task(name="test.bound", submit=True, bind=True)(bound),
    ]
    try:
        api = FastAPI()
        api.include_router(submission_router(made))
        schemas = api.openapi()["components"]["schemas"]
    finally:
        for task in made:
            celery_app.tasks.unregister(task)
    assert list(schemas["TestFetchArguments"]["properties"]) == ["url"]
    assert list(schemas["TestBoundArguments"]["properties"]) == ["number"]
