"""A task that failed or was revoked runs again with the message that was stored, as a new task, once."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from celery import chain, states
from celery.app.trace import trace_task

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.worker import history, records, rerun
from app.worker.broker import result_key, results_client
from app.worker.flow_control import Rate, Unique
from app.worker.history import TaskRecord
from app.worker.job_limit import TooManyJobs
from app.worker.publish import QueueUnavailable, RetryRefused, cancel, enqueue, retry
from app.worker.status import read_status

Make = Callable[..., Any]


def _body(how: Any, *more: Any, **named: Any) -> Any:
    if how == "fail":
        raise ValueError("no such file")
    if how == "change":
        more[0].append({1, 2})
        raise ValueError("changed")
    return how


@pytest.fixture
def make() -> Iterator[Make]:
    """Give a function that makes a task with some options, which succeeds or fails as its first argument says."""
    made: list[Any] = []

    def one(body: Callable[..., Any] = _body, **options: Any) -> Any:
        made.append(celery_app.task(name=f"test.replayed{len(made)}", **options)(body))
        return made[-1]

    yield one
    for task in made:
        celery_app.tasks.unregister(task)


@pytest.fixture(autouse=True)
def broker() -> Iterator["redis.Redis"]:
    """Give a client of the broker, whose data and that of the result store are deleted before and after each test."""
    with redis.Redis.from_url(celery_settings.broker_url.get_secret_value()) as client:
        client.flushdb()
        results_client().flushdb()
        yield client
        client.flushdb()
        results_client().flushdb()


def _queued(broker: Any) -> list[dict[str, Any]]:
    """Return the messages of all queues, oldest first, with their arguments."""
    lists = [key for key in broker.keys("*") if broker.type(key) == b"list"]
    found = [json.loads(text) for key in lists for text in reversed(broker.lrange(key, 0, -1))]
    return [{**message, "body": json.loads(base64.b64decode(message["body"]))} for message in found]


def _run(broker: Any, task: Any) -> str:
    """Run the message that is queued as a worker does, and return the task's id."""
    (message,) = _queued(broker)
    for key in broker.keys("*"):
        if broker.type(key) == b"list":
            broker.delete(key)
    args, kwargs, embed = message["body"]
    headers, delivery = message["headers"], message["properties"]["delivery_info"]
    request = {
        **headers,
        **embed,
        "hostname": "w1@host",
        "delivery_info": {**delivery, "priority": message["properties"]["priority"], "redelivered": False},
    }
    trace_task(task, headers["id"], args, kwargs, request, app=celery_app)
    return str(headers["id"])


def _failed(broker: Any, task: Any, *args: Any, **options: Any) -> str:
    task.apply_async(args or ("fail",), **options)
    task_id = _run(broker, task)
    assert _record(task_id).state == "FAILURE"
    return task_id


def _record(task_id: str) -> TaskRecord:
    record = history.read(task_id)
    assert record is not None
    return record


def _retry(task_id: str, **options: Any) -> str:
    result = asyncio.run(retry(task_id, **options))
    assert result is not None
    return str(result.id)


def _stored(task_id: str) -> Any:
    text = results_client().get(rerun.message_key(task_id))
    return text and json.loads(text)


def test_a_failed_task_is_queued_again_with_its_whole_message(make: Make, broker: Any) -> None:
    task = make()
    options: dict[str, Any] = {"queue": "long", "priority": 5, "time_limit": 40, "soft_time_limit": 20}
    task_id = _failed(
        broker, task, "fail", {"a": 1}, kwargs={"b": "ä"}, headers={"tenant": "t", "owner": "user-1"}, **options
    )
    new = _retry(task_id)
    (message,) = _queued(broker)
    headers = message["headers"]
    assert message["body"][:2] == [["fail", {"a": 1}], {"b": "ä"}]
    assert (headers["id"], headers["tenant"], headers["owner"], headers["timelimit"]) == (new, "t", "user-1", [40, 20])
    assert (headers["retries"], headers["replay_of"]) == (0, task_id)
    assert (message["properties"]["priority"], message["properties"]["delivery_info"]["routing_key"]) == (5, "long")
    record = _record(new)
    assert (record.state, record.replay_of, record.owner, record.root, record.parent) == (
        "PENDING",
        task_id,
        "user-1",
        None,
        None,
    )
    assert _record(task_id).state == "FAILURE"


def test_a_retry_runs_and_a_failed_retry_is_retried_itself(make: Make, broker: Any) -> None:
    task = make()
    first = _failed(broker, task)
    second = _retry(first)
    assert _run(broker, task) == second
    assert _record(second).state == "FAILURE"
    assert _retry(first) == second
    assert _queued(broker) == []
    third = _retry(second)
    assert third not in {first, second}
    assert _record(third).replay_of == second


def test_a_task_that_succeeds_makes_and_stores_nothing_more(
    make: Make, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(rerun, "message")
    task = make()
    task.delay("done")
    task_id = _run(broker, task)
    assert {key.decode().partition(task_id)[2] for key in results_client().scan_iter(f"*{task_id}*")} == {"", "/record"}
    with pytest.raises(RetryRefused, match="is SUCCESS; only one that is FAILURE or REVOKED"):
        _retry(task_id)


@pytest.mark.parametrize("state", [states.PENDING, states.STARTED, states.RETRY])
def test_a_task_that_has_not_ended_is_not_retried(make: Make, broker: Any, state: str) -> None:
    task_id = make().delay("x").id
    if state != states.PENDING:
        celery_app.backend.store_result(task_id, ValueError("x") if state == states.RETRY else {}, state)
    with pytest.raises(RetryRefused, match=f"is {state}"):
        _retry(task_id)
    assert len(_queued(broker)) == 1


def test_an_unknown_task_is_none() -> None:
    assert asyncio.run(retry("never-queued")) is None


def test_redacted_arguments_are_never_stored(make: Make, broker: Any) -> None:
    task_id = _failed(broker, make(redact_arguments=True), "fail", "secret-4711")
    for key in results_client().scan_iter("*"):
        if results_client().type(key) == b"string":
            assert b"secret-4711" not in results_client().get(key)
    with pytest.raises(RetryRefused, match="never stored, as the task has redact_arguments=True"):
        _retry(task_id)
    assert _queued(broker) == []


def test_a_task_that_is_redacted_since_a_later_release_is_not_retried(
    make: Make, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make()
    task_id = _failed(broker, task)
    monkeypatch.setattr(celery_app.tasks[task.name], "redact_arguments", True)
    with pytest.raises(RetryRefused, match="redact_arguments=True"):
        _retry(task_id)


def test_a_message_of_a_release_that_redacted_it_is_not_stored(make: Make, broker: Any) -> None:
    task = make()
    task.apply_async(("fail",), argsrepr="(hidden)")
    assert _stored(_run(broker, task)) == {"not_stored": "redacted"}


def test_arguments_over_the_limit_are_not_stored(make: Make, broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_settings, "records_message_max_bytes", 2000)
    task = make()
    fits, too_large = (_failed(broker, task, "fail", "x" * length) for length in (1000, 2000))
    assert _retry(fits)
    with pytest.raises(RetryRefused, match="CELERY_RECORDS_MESSAGE_MAX_BYTES"):
        _retry(too_large)
    assert results_client().strlen(rerun.message_key(too_large)) < 100


def test_arguments_that_the_task_changed_to_no_json_are_not_stored(make: Make, broker: Any) -> None:
    task_id = _failed(broker, make(), "change", [])
    with pytest.raises(RetryRefused, match="changed its arguments"):
        _retry(task_id)


def test_arguments_of_kombus_types_keep_their_types(make: Make, broker: Any) -> None:
    task = make()
    moment = datetime(2026, 11, 27, tzinfo=UTC)
    task.apply_async(("fail", moment))
    (message,) = _queued(broker)
    arguments = message["body"][0]
    # As a worker decodes it.
    broker.flushdb()
    request = {**message["headers"], "delivery_info": {"routing_key": "default"}}
    trace_task(task, message["headers"]["id"], ["fail", moment], {}, request, app=celery_app)
    _retry(message["headers"]["id"])
    assert _queued(broker)[0]["body"][0] == arguments


def test_a_step_of_a_workflow_is_not_retried(make: Make, broker: Any) -> None:
    task = make()
    chain(task.s("fail"), task.s()).apply_async()
    task_id = _run(broker, task)
    assert _stored(task_id) == {"not_stored": "workflow"}
    with pytest.raises(RetryRefused, match="queue the workflow again"):
        _retry(task_id)


def test_the_steps_after_a_failed_one_have_no_message(make: Make, broker: Any) -> None:
    task = make()
    second = chain(task.s("fail"), task.s("x")).apply_async().id
    _run(broker, task)
    assert (_record(second).state, _stored(second)) == ("FAILURE", None)


def test_a_task_that_was_cancelled_while_it_waited_is_retried_when_a_worker_had_its_message(
    make: Make, broker: Any
) -> None:
    task = make()
    task_id = task.delay("x", 1).id
    asyncio.run(cancel(task_id))
    with pytest.raises(RetryRefused, match="no worker has taken it"):
        _retry(task_id)
    assert _run(broker, task) == task_id
    new = _retry(task_id)
    assert (_record(task_id).state, _record(new).state) == ("REVOKED", "PENDING")
    assert _queued(broker)[0]["body"][0] == ["x", 1]
    # The new task is not cancelled.
    assert _run(broker, task) == new
    assert _record(new).state == "SUCCESS"


def test_a_task_without_a_result_is_retried_too(make: Make, broker: Any) -> None:
    task = make(ignore_result=True)
    new = _retry(_failed(broker, task))
    (message,) = _queued(broker)
    assert (message["headers"]["ignore_result"], _record(new).state) == (True, "UNTRACKED")


def test_a_message_expires_with_its_record(make: Make, broker: Any) -> None:
    task = make()
    task.delay("x")
    (message,) = _queued(broker)
    task_id = message["headers"]["id"]
    asyncio.run(cancel(task_id))
    client = results_client()
    client.expire(records.record_key(task_id), 100)
    _run(broker, task)
    assert 0 < client.ttl(rerun.message_key(task_id)) <= 100


def test_the_oldest_messages_are_dropped_with_their_records(
    make: Make, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_settings, "records_max", 2)
    task = make()
    ended = [_failed(broker, task) for _ in range(4)]
    assert [bool(_stored(task_id)) for task_id in ended] == [False, False, True, True]


def test_another_task_under_the_same_id_has_another_message_and_another_retry(make: Make, broker: Any) -> None:
    task = make()
    task_id = _failed(broker, task, "fail", 1)
    first = _retry(task_id)
    broker.delete("default")
    results_client().delete(result_key(task_id))
    task.apply_async(("fail", 2), task_id=task_id)
    assert _stored(task_id) is None
    _run(broker, task)
    assert _retry(task_id) != first
    assert _queued(broker)[0]["body"][0] == ["fail", 2]


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"args": 1}', '{"args": [], "kwargs": {}, "version": "x"}'])
def test_what_another_program_stored_is_refused(make: Make, broker: Any, text: str) -> None:
    task_id = _failed(broker, make(version=2))
    results_client().set(rerun.message_key(task_id), text)
    with pytest.raises(RetryRefused, match="cannot run again"):
        _retry(task_id)


def test_a_task_or_queue_of_another_release_is_refused(make: Make, broker: Any) -> None:
    task = make()
    task_id = _failed(broker, task)
    key = rerun.message_key(task_id)
    results_client().set(key, json.dumps({**_stored(task_id), "queue": "former"}))
    with pytest.raises(RetryRefused, match="former"):
        _retry(task_id)
    celery_app.tasks.unregister(task)
    try:
        with pytest.raises(RetryRefused, match=f"has no task {task.name}"):
            _retry(task_id)
    finally:
        celery_app.tasks.register(task)


# --- versions ---


def test_a_message_is_upgraded_once_whether_a_worker_had_upgraded_it_or_not(make: Make, broker: Any) -> None:
    upgrades = {1: lambda args, kwargs: ([*args, "upgraded"], kwargs)}
    task = make(version=2, upgrades=upgrades)
    task_id = _failed(broker, task)
    results_client().set(rerun.message_key(task_id), json.dumps({**_stored(task_id), "version": None}))
    _retry(task_id)
    (message,) = _queued(broker)
    assert (message["headers"]["payload_version"], message["body"][0]) == (2, ["fail", "upgraded"])
    # An older release queued it, and this one's worker upgraded it.
    (message,) = _queued(broker)
    del message["headers"]["payload_version"]
    request = {**message["headers"], "id": "older", "delivery_info": {"routing_key": "default"}}
    task.__trace__("older", ["fail"], {}, request)
    assert (_stored("older")["version"], _stored("older")["args"]) == (2, ["fail", "upgraded"])


def test_a_message_of_a_newer_version_or_without_an_upgrade_is_refused(make: Make, broker: Any) -> None:
    def fail(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        raise LookupError("no such currency")

    task_id = _failed(broker, make(version=3, upgrades={2: fail}))
    for version, reason in ((4, "a newer release"), (1, "no upgrade"), (2, "no such currency")):
        results_client().set(rerun.message_key(task_id), json.dumps({**_stored(task_id), "version": version}))
        with pytest.raises(RetryRefused, match=reason):
            _retry(task_id)


# --- limits ---


def test_a_retry_is_not_judged_by_the_rules_for_new_calls(make: Make, broker: Any) -> None:
    task = make(unique=Unique(), rate=Rate(1, 3600))
    task_id = _failed(broker, task)
    new = _retry(task_id)
    assert [message["headers"]["id"] for message in _queued(broker)] == [new]


def test_the_owners_limit_counts_a_retry_and_an_operators_is_not_refused(
    make: Make, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make()
    first, second = (_failed(broker, task, headers={"owner": "user-1"}) for _ in range(2))
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 1)
    _retry(first)
    with pytest.raises(TooManyJobs):
        _retry(second)
    assert _retry(second, limited=False)
    assert len(_queued(broker)) == 2
    with pytest.raises(TooManyJobs):
        asyncio.run(enqueue(task.s("x"), "user-1"))


def test_a_retry_that_redis_refuses_leaves_nothing_and_may_be_made_again(make: Make, broker: Any) -> None:
    task_id = _failed(broker, make(), headers={"owner": "user-1"})
    before = {key for key in results_client().scan_iter("*") if b"/jobs/" not in key}
    broker.set("default", "no list")
    with pytest.raises(QueueUnavailable):
        _retry(task_id)
    assert {key for key in results_client().scan_iter("*") if b"/jobs/" not in key} == before
    broker.delete("default")
    _retry(task_id)
    assert len(_queued(broker)) == 1


# --- races ---


def test_of_many_retries_at_once_one_is_queued(make: Make, broker: Any) -> None:
    task_id = _failed(broker, make())

    async def all_at_once() -> set[str]:
        results = await asyncio.gather(*(retry(task_id) for _ in range(30)))
        return {result.id for result in results if result}

    with ThreadPoolExecutor(4) as threads:
        found = set().union(*threads.map(lambda _: asyncio.run(all_at_once()), range(4)))
    assert [message["headers"]["id"] for message in _queued(broker)] == list(found)
    assert {record.task_id for record in history.page(history.Filter()).records} == {task_id, *found}


@pytest.mark.parametrize("end", ["fail", "done"])
def test_a_retry_against_the_end_is_refused_or_made_once(make: Make, broker: Any, end: str) -> None:
    task = make()
    for _ in range(20):
        task.delay(end)
        (message,) = _queued(broker)
        task_id = message["headers"]["id"]

        def try_retry(task_id: str = task_id) -> str | None:
            try:
                return _retry(task_id)
            except RetryRefused:
                return None

        with ThreadPoolExecutor(3) as threads:
            running = threads.submit(_run, broker, task)
            outcomes = {threads.submit(try_retry).result() for _ in range(5)}
            running.result()
        if end == "fail":
            outcomes.add(_retry(task_id))
        assert {one["headers"]["id"] for one in _queued(broker)} == outcomes - {None}
        assert len(outcomes - {None}) == (end == "fail")
        broker.delete("default")


def test_a_cancelled_task_whose_result_has_expired_is_revoked(make: Make, broker: Any) -> None:
    task = make()
    task_id = task.apply_async(("x",), countdown=7200).id
    results_client().delete(result_key(task_id))
    status = asyncio.run(cancel(task_id))
    assert status is not None
    assert (status.status, _record(task_id).state) == ("REVOKED", "REVOKED")
    results_client().delete(result_key(task_id))
    again = asyncio.run(cancel(task_id))
    assert again is not None
    assert again.status == "REVOKED"
    assert read_status(task_id) is None
