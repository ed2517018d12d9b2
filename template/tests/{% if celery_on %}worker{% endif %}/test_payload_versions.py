"""Payload versions: messages that another release queued, and correlation: what a message's headers carry."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from celery import states
from celery.app.trace import trace_task

from app.core.celery import celery_app
from app.worker import payload_versions
from app.worker.publish import enqueue

pytestmark = pytest.mark.anyio


def _add_currency(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    return args, {"currency": "EUR", **kwargs}


def _name_amount(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    return [], {"amount": args[0], **kwargs}


def _pay(*, amount: int, currency: str) -> str:
    return f"{amount} {currency}"


@pytest.fixture
def pay() -> Iterator[Any]:
    """Give a task of version 3."""
    task: Any = celery_app.task(name="test.pay", version=3, upgrades={1: _add_currency, 2: _name_amount})(_pay)
    celery_app.finalize()
    yield celery_app.tasks["test.pay"]
    celery_app.tasks.unregister(task)


@pytest.fixture
def waiting() -> Iterator[Any]:
    """Give a function that takes the next message of `default`."""
    with celery_app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.queue_purge("default")
        yield lambda: channel.basic_get("default", no_ack=True)
        channel.queue_purge("default")


def _run(task: Any, args: Any, kwargs: Any, **headers: object) -> tuple[str, Any]:
    request = {"id": "versions", "retries": 0, "ignore_result": True, "delivery_info": {}, **headers}
    ended = trace_task(task, "versions", args, kwargs, request, app=celery_app)
    return (ended.info.state, ended.info.retval) if ended.info else (states.SUCCESS, ended.retval)


@pytest.mark.parametrize(
    ("args", "kwargs", "headers"),
    [
        ((5,), {}, {}),
        ((5,), {"currency": "EUR"}, {"payload_version": 2}),
        ((), {"amount": 5, "currency": "EUR"}, {"payload_version": 3}),
    ],
)
def test_a_message_of_each_older_version_is_upgraded(pay: Any, args: Any, kwargs: Any, headers: Any) -> None:
    assert _run(pay, args, kwargs, **headers) == (states.SUCCESS, "5 EUR")


def test_a_message_that_cannot_be_upgraded_fails(pay: Any) -> None:
    state, error = _run(pay, (), {"currency": "EUR"}, payload_version=2)
    assert (state, type(error)) == (states.FAILURE, IndexError)


def test_a_message_without_an_upgrade_fails() -> None:
    task: Any = celery_app.task(name="test.forgets", version=3, upgrades={2: _name_amount})(_pay)
    state, error = _run(task, (5,), {})
    celery_app.tasks.unregister(task)
    assert (state, str(error)) == (states.FAILURE, "test.forgets has no upgrade for messages of version 1")


async def test_a_message_has_the_version_of_its_publisher(pay: Any, waiting: Any) -> None:
    await enqueue(pay.s(amount=5, currency="EUR"))
    assert waiting().headers[payload_versions.HEADER] == 3


def test_a_retry_has_the_version_to_which_it_was_upgraded(pay: Any, waiting: Any) -> None:
    pay.apply_async(kwargs={"amount": 5, "currency": "EUR"}, headers={payload_versions.HEADER: 1})
    assert waiting().headers[payload_versions.HEADER] == 3


def test_only_a_message_of_a_newer_release_is_newer(pay: Any) -> None:
    versions: list[dict[str, Any]] = [{}, {"payload_version": 3}, {"payload_version": 4}, {"payload_version": "x"}]
    assert [payload_versions.is_newer(pay, headers) for headers in versions] == [False, False, True, False]


@pytest.mark.parametrize(
    "options",
    [
        {"version": 0},
        {"version": "2"},
        {"upgrades": {1: _add_currency}},
        {"version": 3, "upgrades": {1: _add_currency}},
        {"version": 2, "upgrades": {2: _add_currency}},
    ],
)
def test_upgrades_with_a_gap_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"test\.gap: "):
        celery_app.task(name="test.gap", lazy=False, **options)(_pay)
    celery_app.tasks.pop("test.gap", None)


# --- correlation ---


async def test_a_task_has_the_request_id_and_the_trace_of_what_queued_it(waiting: Any) -> None:
    task: Any = celery_app.task(name="test.correlated")(_pay)
    with structlog.contextvars.bound_contextvars(request_id="r1", traceparent="00-a-b-01", other="x"):
        await enqueue(task.s(amount=5, currency="EUR"))
        task.delay(amount=5, currency="EUR")
    headers = [waiting().headers for _ in range(2)]
    celery_app.tasks.unregister(task)
    assert [one["request_id"] for one in headers] == ["r1", "r1"]
    assert all("other" not in one for one in headers)
    assert all("traceparent" in one for one in headers)


def test_the_log_and_the_children_of_a_task_have_them_too(waiting: Any) -> None:
    child: Any = celery_app.task(name="test.child")(_pay)

    def queue_child() -> dict[str, Any]:
        child.delay(amount=1, currency="EUR")
        return structlog.contextvars.get_contextvars()

    parent: Any = celery_app.task(name="test.parent")(queue_child)
    _, context = _run(parent, (), {}, request_id="r1", owner="ada", traceparent=["no text"])
    celery_app.tasks.unregister(child)
    celery_app.tasks.unregister(parent)
    assert (context["request_id"], context["owner"], context["task_id"]) == ("r1", "ada", "versions")
    assert waiting().headers["request_id"] == "r1"
    assert structlog.contextvars.get_contextvars() == {}
