"""The record of each task: what is in it, which state it has, and where it is found."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import states
from celery.app.task import Context
from celery.app.trace import trace_task
from structlog.testing import capture_logs

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker import history, records, revocation
from app.worker.broker import result_key, results_client
from app.worker.history import Filter, TaskRecord
from app.worker.publish import QueueUnavailable, cancel, enqueue, enqueue_many
from app.worker.status import UNTRACKED


def _body(how: str) -> str:
    if how == "fail":
        raise ValueError("no such file")
    return how


@pytest.fixture
def task() -> Iterator[Any]:
    """Give a task that succeeds or fails as its argument says."""
    made: Any = celery_app.task(name="test.recorded")(_body)
    yield made
    celery_app.tasks.unregister(made)


@pytest.fixture(autouse=True)
def no_records() -> None:
    """Delete the result store's data before each test."""
    results_client().flushdb()


def _read(task_id: str) -> TaskRecord:
    record = history.read(task_id)
    assert record is not None
    return record


def _deliver(task: Any, task_id: str, *args: object, **headers: object) -> None:
    """Run the task as a worker does."""
    delivery = {"routing_key": "default", "redelivered": headers.pop("redelivered", False)}
    request = {
        "id": task_id,
        "task": task.name,
        "retries": 0,
        "hostname": "w1@host",
        "ignore_result": task.ignore_result,
        "delivery_info": delivery,
        **headers,
    }
    trace_task(task, task_id, args, {}, request, app=celery_app)


def _store(task_id: str, state: str, value: Any = None, **options: Any) -> None:
    is_wrong = isinstance(value, Exception) and state not in states.EXCEPTION_STATES
    celery_app.backend.store_result(task_id, None if is_wrong else value, state, **options)


def _ids(**which: Any) -> list[str]:
    return [record.task_id for record in history.page(Filter(**which)).records]


def _indexes() -> dict[str, list[bytes]]:
    client = results_client()
    prefix = result_key("/records/").decode()
    names = sorted(name.decode() for name in client.scan_iter(f"{prefix}*"))
    return {name.removeprefix(prefix): client.zrange(name, 0, -1) for name in names}


def test_a_published_task_has_a_record_of_its_message() -> None:
    before = datetime.now(UTC)
    result = asyncio.run(enqueue(process_task.s({"a": 1}), owner="user-1"))
    record = _read(result.id)
    assert (record.state, record.name, record.queue, record.owner) == ("PENDING", process_task.name, "high", "user-1")
    assert (record.args, record.kwargs, record.parent, record.attempt) == ("({'a': 1},)", "{}", None, 0)
    assert before - timedelta(seconds=1) < record.queued < datetime.now(UTC) + timedelta(seconds=1)
    assert (record.started, record.finished, record.next_retry, record.error) == (None, None, None, None)


def test_every_way_to_publish_records_the_task(task: Any) -> None:
    many = asyncio.run(enqueue_many([process_task.s({}), process_task.s({})]))
    published = [process_task.delay({}).id, task.delay("x").id, *(one.id for one in many)]
    assert set(_ids()) == set(published)


def test_redacted_arguments_are_not_recorded() -> None:
    task: Any = celery_app.task(name="test.redacted", redact_arguments=True)(_body)
    try:
        record = _read(task.delay("4711").id)
    finally:
        celery_app.tasks.unregister(task)
    assert (record.args, record.kwargs) == ("(hidden)", "{hidden}")


def test_a_run_is_recorded_from_start_to_end(task: Any) -> None:
    task_id = task.delay("done").id
    _deliver(task, task_id, "done")
    record = _read(task_id)
    assert (record.state, record.attempt, record.worker, record.error) == ("SUCCESS", 1, "w1@host", None)
    assert record.started is not None
    assert record.finished is not None
    assert record.queued < record.started < record.finished
    assert [(one.number, one.error) for one in record.attempts] == [(1, None)]


def test_a_failure_has_its_error(task: Any) -> None:
    task_id = task.delay("fail").id
    _deliver(task, task_id, "fail")
    record = _read(task_id)
    assert (record.state, record.error) == ("FAILURE", {"type": "ValueError", "message": "no such file"})


def test_a_task_without_a_record_gets_one_when_it_runs(task: Any) -> None:
    task_id = str(uuid.uuid4())
    _deliver(task, task_id, "done", argsrepr="('done',)", parent_id="p", root_id="r")
    record = _read(task_id)
    assert (record.state, record.name, record.queue, record.args) == ("SUCCESS", task.name, "default", "('done',)")
    assert (record.parent, record.root) == ("p", "r")
    assert _ids(name=task.name) == [task_id]


def test_redeliveries_are_counted(task: Any) -> None:
    task_id = task.delay("done").id
    for number in (1, 2):
        _store(task_id, states.STARTED, {}, request=_request(task_id, redelivered=True))
        assert _read(task_id).redeliveries == number


def _request(task_id: str, retries: int = 0, *, redelivered: bool = False) -> Context:
    """Return a request of a task, with which its states are stored."""
    delivery = {"routing_key": "default", "redelivered": redelivered}
    return Context(id=task_id, task="test.recorded", hostname="w1@host", retries=retries, delivery_info=delivery)


def test_a_retry_has_the_time_and_the_errors_of_the_attempts(task: Any) -> None:
    task_id = task.delay("x").id
    for retries in range(2):
        _store(task_id, states.STARTED, {}, request=_request(task_id, retries))
        error = ValueError(f"attempt {retries + 1}")
        _store(task_id, states.RETRY, error, request=_request(task_id, retries), next_retry=60)
    record = _read(task_id)
    assert record.state == "RETRY"
    assert record.next_retry is not None
    assert timedelta(seconds=55) < record.next_retry - datetime.now(UTC) < timedelta(seconds=65)
    assert [(one.number, (one.error or {})["message"]) for one in record.attempts] == [
        (1, "attempt 1"),
        (2, "attempt 2"),
    ]
    _store(task_id, states.STARTED, {}, request=_request(task_id, 2))
    record = _read(task_id)
    assert (record.state, record.next_retry, record.error, len(record.attempts)) == ("STARTED", None, None, 3)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [({"countdown": 60}, 60), ({"eta": timedelta(seconds=600)}, 600), ({}, 180)],
    ids=["countdown", "eta", "default"],
)
def test_a_task_that_retries_itself_has_the_time_of_its_next_attempt(options: dict[str, Any], seconds: int) -> None:
    def retry(self: Any) -> None:
        times = {name: datetime.now(UTC) + value if name == "eta" else value for name, value in options.items()}
        raise self.retry(exc=ValueError("busy"), **times)

    task: Any = celery_app.task(name="test.retrying", bind=True)(retry)
    try:
        task_id = task.delay().id
        _deliver(task, task_id)
    finally:
        celery_app.tasks.unregister(task)
    record = _read(task_id)
    assert (record.state, record.error, record.attempt) == ("RETRY", {"type": "ValueError", "message": "busy"}, 1)
    assert record.next_retry is not None
    assert abs((record.next_retry - datetime.now(UTC)).total_seconds() - seconds) < 30


def test_the_newest_attempts_are_kept(task: Any) -> None:
    task_id = task.delay("x").id
    for retries in range(40):
        _store(task_id, states.STARTED, {}, request=_request(task_id, retries))
        _store(task_id, states.RETRY, ValueError("x" * 500), request=_request(task_id, retries))
    record = _read(task_id)
    assert record.attempts[-1].number == 40
    assert 2 <= len(record.attempts) < 10
    assert results_client().strlen(records.record_key(task_id)) < 2000


def test_progress_is_recorded_and_the_state_stays(task: Any) -> None:
    task_id = task.delay("x").id
    _store(task_id, states.STARTED, {}, request=_request(task_id))
    _store(task_id, "PROGRESS", {"done": 1, "of": 2})
    record = _read(task_id)
    assert (record.state, record.progress) == ("STARTED", {"state": "PROGRESS", "value": {"done": 1, "of": 2}})


def test_progress_that_json_does_not_have_is_left_out() -> None:
    assert records.state_arguments("id", "STEP", None, None, {("a", "b"): 1}, 0) == [
        *records.state_arguments("id", "STEP", None, None, None, 0)
    ]


@pytest.mark.parametrize("final", sorted(states.READY_STATES))
@pytest.mark.parametrize("later", [*sorted(states.READY_STATES), states.STARTED, states.RETRY, "PROGRESS"])
def test_a_final_state_never_changes(task: Any, final: str, later: str) -> None:
    task_id = task.delay("x").id
    _store(task_id, final, ValueError("first"), request=_request(task_id))
    first = _read(task_id)
    # The record stays longer than the result.
    results_client().delete(result_key(task_id))
    _store(task_id, later, ValueError("later"), request=_request(task_id, 1), next_retry=1)
    assert _read(task_id) == first
    assert _ids(state=final) == [task_id]


@pytest.mark.parametrize("state", [states.STARTED, states.RETRY, states.SUCCESS])
def test_publishing_again_under_the_same_id_keeps_the_state(task: Any, state: str) -> None:
    task_id = task.delay("x").id
    _store(task_id, state, ValueError("x"), request=_request(task_id))
    before, stored = _read(task_id), results_client().get(result_key(task_id))
    task.apply_async(("x",), task_id=task_id, retries=1)
    assert (_read(task_id), results_client().get(result_key(task_id))) == (before, stored)


def test_a_late_retry_of_a_task_whose_record_was_dropped_begins_none(task: Any) -> None:
    task_id = task.delay("x").id
    _store(task_id, states.FAILURE, ValueError("x"), request=_request(task_id))
    results_client().delete(records.record_key(task_id))
    task.apply_async(("x",), task_id=task_id, retries=1)
    assert history.read(task_id) is None


def test_another_task_under_the_id_of_an_expired_result_begins_a_record(task: Any) -> None:
    task_id = task.delay("x").id
    _store(task_id, states.FAILURE, ValueError("x"), request=_request(task_id))
    results_client().delete(result_key(task_id))
    task.apply_async(("y",), task_id=task_id)
    record = _read(task_id)
    assert (record.state, record.error, record.args) == ("PENDING", None, "('y',)")
    assert (_ids(state="FAILURE"), _ids(state="PENDING"), _ids()) == ([], [task_id], [task_id])


def test_a_record_has_the_state_of_a_result_that_was_stored_before_it(task: Any) -> None:
    task_id = task.delay("x").id
    _store(task_id, states.SUCCESS, 1)
    results_client().delete(records.record_key(task_id))
    _store(task_id, states.FAILURE, ValueError("x"), request=_request(task_id))
    record = _read(task_id)
    assert (record.state, record.error) == ("SUCCESS", None)


def test_a_cancelled_task_is_revoked_and_does_not_start(task: Any) -> None:
    task_id = task.delay("x").id
    asyncio.run(cancel(task_id))
    _deliver(task, task_id, "x")
    record = _read(task_id)
    assert (record.state, record.started, record.attempt) == ("REVOKED", None, 0)


def test_an_unpublished_task_that_is_revoked_has_no_record() -> None:
    task_id = str(uuid.uuid4())
    records.record_pending([task_id])
    revocation.cancel(task_id, terminate=False)
    assert history.read(task_id) is None
    assert _indexes() == {}


def test_a_task_without_a_result_is_untracked_until_it_fails() -> None:
    task: Any = celery_app.task(name="test.ignored", ignore_result=True)(_body)
    try:
        ended, failed = task.delay("done").id, task.delay("fail").id
        _deliver(task, ended, "done")
        _deliver(task, failed, "fail")
    finally:
        celery_app.tasks.unregister(task)
    assert (_read(ended).state, _read(failed).state) == (UNTRACKED, "FAILURE")
    assert (_ids(state=UNTRACKED), _ids(state="FAILURE")) == ([ended], [failed])


@pytest.mark.parametrize(("state", "later"), [(states.PENDING, UNTRACKED), (states.STARTED, states.STARTED)])
def test_a_task_that_is_queued_again_without_a_result_is_untracked_until_it_starts(
    task: Any, state: str, later: str
) -> None:
    task_id = task.delay("x").id
    _store(task_id, state)
    task.apply_async(("x",), task_id=task_id, ignore_result=True)
    assert _read(task_id).state == later
    assert _ids(state=later) == [task_id]


def test_a_retry_of_a_task_without_a_result_does_not_hide_its_end(task: Any) -> None:
    task_id = task.apply_async(("x",), ignore_result=True).id
    _store(task_id, states.REVOKED, ValueError("x"))
    task.apply_async(("x",), task_id=task_id, ignore_result=True, retries=1)
    stored = results_client().get(result_key(task_id))
    assert (json.loads(stored)["status"], _read(task_id).state) == ("REVOKED", "REVOKED")


def test_each_task_is_in_the_index_of_its_state_alone(task: Any) -> None:
    task_id = task.delay("x").id
    request = _request(task_id)
    for state, value in (("STARTED", {}), ("RETRY", ValueError()), ("STARTED", {}), ("FAILURE", ValueError())):
        _store(task_id, state, value, request=request)
        assert [name for name in _indexes() if name.startswith("state/")] == [f"state/{state}"]
    assert set(_indexes()) == {"all", "state/FAILURE", "name/test.recorded", "queue/default"}


def test_records_are_found_by_each_of_their_fields_and_all_together(task: Any) -> None:
    mine = asyncio.run(enqueue(task.s("x"), owner="user-1")).id
    theirs = asyncio.run(enqueue(task.s("x").set(queue="long"), owner="user-2")).id
    other = process_task.delay({}).id
    _store(theirs, states.SUCCESS, 1, request=_request(theirs))
    assert _ids() == [other, theirs, mine]
    assert _ids(owner="user-1") == [mine]
    assert _ids(name=task.name) == [theirs, mine]
    assert _ids(queue="long") == [theirs]
    assert _ids(state="SUCCESS") == [theirs]
    assert _ids(state="PENDING", name=task.name, queue="default", owner="user-1") == [mine]
    assert _ids(state="SUCCESS", owner="user-1") == []
    queued = _read(theirs).queued
    assert _ids(since=queued) == [other, theirs]
    assert _ids(until=queued) == [theirs, mine]
    assert _ids(since=queued, until=queued) == [theirs]


def test_pages_have_each_record_once_also_those_queued_at_the_same_time(task: Any) -> None:
    published = [task.delay("x").id for _ in range(250)]
    client = results_client()
    # A script takes one time for all that it does.
    for index in ("all", "name/test.recorded"):
        client.zadd(result_key(f"/records/{index}"), dict.fromkeys(published, client.time()[0] * 1_000_000))
    for which in (Filter(), Filter(name=task.name)):
        found, cursor = [], None
        while True:
            page = history.page(which, cursor, limit=37)
            found += [record.task_id for record in page.records]
            cursor = page.next
            if cursor is None:
                break
        assert sorted(found) == sorted(published)


def test_a_search_looks_at_a_bounded_number_of_records_and_continues(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.history._LOOKED_AT", 2)
    monkeypatch.setattr("app.worker.history._CALLS", 2)
    wanted = task.delay("x").id
    _store(wanted, states.SUCCESS, 1, request=_request(wanted))
    for _ in range(4):
        task.delay("x")
    page = history.page(Filter(state="SUCCESS"))
    assert (page.records, page.next is not None) == ([], True)
    assert [record.task_id for record in history.page(Filter(state="SUCCESS"), page.next).records] == [wanted]


def test_children_are_found_among_the_tasks_of_a_workflow(task: Any) -> None:
    root = task.delay("x").id
    child = task.apply_async(("y",), parent_id=root, root_id=root).id
    grandchild = task.apply_async(("z",), parent_id=child, root_id=root).id
    assert [[one.task_id for one in history.children(_read(task_id))] for task_id in (root, child, grandchild)] == [
        [child],
        [grandchild],
        [],
    ]


def test_more_records_than_allowed_drop_the_oldest(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_settings, "records_max", 3)
    published = [task.delay("x").id for _ in range(10)]
    assert _ids() == published[:-4:-1]
    client = results_client()
    assert len(list(client.scan_iter("*/record"))) == 3
    for index, ids in _indexes().items():
        assert len(ids) <= 4, index


def test_a_lower_limit_drops_four_records_for_each_new_one(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(8):
        task.delay("x")
    monkeypatch.setattr(celery_settings, "records_max", 1)
    task.delay("x")
    client = results_client()
    assert client.zcard(result_key("/records/all")) == len(list(client.scan_iter("*/record"))) == 5


def test_records_expire_and_leave_the_indexes_as_others_are_written(task: Any) -> None:
    expired = [task.delay("x").id for _ in range(6)]
    client = results_client()
    long_ago = (client.time()[0] - celery_settings.records_expire - 10) * 1_000_000
    for index in ("all", "state/PENDING", "name/test.recorded", "queue/default"):
        client.zadd(result_key(f"/records/{index}"), dict.fromkeys(expired, long_ago))
    assert _ids() == _ids(name=task.name) == []
    left = [task.delay("x").id for _ in range(3)]
    for ids in _indexes().values():
        assert {one.decode() for one in ids} == set(left)
    assert history.read(expired[0]) is None
    for key in client.scan_iter("*/record*"):
        assert 0 < client.ttl(key) <= celery_settings.records_expire


def test_a_state_is_stored_when_the_index_of_all_records_has_expired(task: Any) -> None:
    task_id = task.delay("x").id
    results_client().delete(result_key("/records/all"))
    # One state in ten trims its index.
    for number in range(100):
        _store(task_id, (states.STARTED, states.RETRY)[number % 2])
        assert _read(task_id).state == (states.STARTED, states.RETRY)[number % 2]


def test_a_record_is_at_most_a_kilobyte_with_its_entries(task: Any) -> None:
    client = results_client()
    roots = [str(uuid.uuid4()) for _ in range(10)]
    for number in range(300):
        options: Any = {"parent_id": str(uuid.uuid4()), "root_id": roots[number % 10]}
        task.apply_async(("x" * 200,), {}, kwargsrepr="y" * 200, headers={"owner": "user-1"}, **options)
    sizes = [client.memory_usage(key, samples=0) for key in client.scan_iter("celery-task-meta-*/record*")]
    # Redis 8 takes more for sorted sets than Valkey 9, for which the rule is.
    most = 1024 if "valkey_version" in client.info("server") else 1152
    assert sum(sizes) / 300 < most


def test_a_task_that_redis_refused_to_queue_has_no_record() -> None:
    with celery_app.connection_for_write() as connection:
        broker: Any = connection.default_channel.client
    broker.delete("high")
    broker.set("high", "no list")
    try:
        with pytest.raises(QueueUnavailable):
            asyncio.run(enqueue(process_task.s({})))
        with pytest.raises(QueueUnavailable):
            asyncio.run(enqueue_many([process_task.s({})] * 2))
    finally:
        broker.delete("high")
    assert (_ids(), _indexes()) == ([], {})


def test_a_record_is_written_to_a_redis_that_has_forgotten_the_scripts() -> None:
    published = []
    for publish in (_enqueue, process_task.delay):
        _forget_scripts()
        published.append(publish({}).id)
    many = asyncio.run(_after_flush())
    assert set(_ids()) == {*published, *many}


def _enqueue(data: dict[str, Any]) -> Any:
    return asyncio.run(enqueue(process_task.s(data)))


@pytest.mark.parametrize("publish", [process_task.delay, _enqueue])
def test_a_task_whose_record_is_refused_is_queued_and_logged(publish: Callable[[dict[str, Any]], Any]) -> None:
    results_client().set(result_key("/records/all"), "no index")
    with capture_logs() as lines:
        task_id = publish({}).id
    assert [line["task_ids"] for line in lines if line["event"] == "tasks_not_recorded"] == [[task_id]]
    assert history.read(task_id) is None


def _forget_scripts() -> None:
    client: Any = results_client()
    client.execute_command("SCRIPT FLUSH")


async def _after_flush() -> list[str]:
    _forget_scripts()
    return [one.id for one in await enqueue_many([process_task.s({})] * 2)]


@pytest.mark.parametrize(
    "text", [b"", b"x", b"\xff\n" * 30, b"STARTED\n" * 21, b"A\n1\n\n\n\nx\n\n\n{\n\n\n" + b"\n" * 9]
)
def test_what_another_program_stored_is_no_record(text: bytes, task: Any) -> None:
    task_id = task.delay("x").id
    client = results_client()
    client.set(records.record_key(task_id), text)
    assert history.read(task_id) is None
    assert _ids() == []
    # It does not keep the state from being stored.
    _deliver(task, task_id, "done")
    assert _read(task_id).state == "SUCCESS"


def test_a_field_cannot_be_mistaken_for_another(task: Any) -> None:
    task_id = task.apply_async(("x",), headers={"owner": "a\nb"}, argsrepr="1\n2", kwargsrepr="k" * 5000).id
    record = _read(task_id)
    assert (record.owner, record.args, len(record.kwargs or "")) == ("a b", "1 2", records.MAX_ARGUMENTS)
    longest = "k" * records.MAX_ARGUMENTS
    assert _read(task.apply_async(("x",), kwargsrepr=longest).id).kwargs == longest


def _refuse(*_: object) -> None:
    raise redis.exceptions.ConnectionError("Redis is gone")


def test_a_record_is_not_needed_to_run(task: Any) -> None:
    task_id = task.delay("x").id
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(celery_app.backend, "_information_refused_at", float("-inf"))
        patched.setattr("app.worker.result_backend._START", _refuse)
        _deliver(task, task_id, "done")
    assert _read(task_id).state == "SUCCESS"
