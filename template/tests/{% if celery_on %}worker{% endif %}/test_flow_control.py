"""Flow control without a worker: what is queued, and what may start, by real Lua in a real Redis."""

import asyncio
import contextlib
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import chain, chord, group, states
from celery.app.trace import trace_task

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.core.database import session_scope
from app.worker import flow_control, flow_scripts, job_limit, messages, waiting
from app.worker.flow_control import Concurrency, Debounce, Duplicate, NotQueued, Rate, RateLimited, Throttle, Unique
from app.worker.publish import QueueTooLong, QueueUnavailable, enqueue, enqueue_many
from app.worker.request import AppRequest
from app.worker.status import read_status

pytestmark = pytest.mark.anyio


@pytest.fixture
def broker() -> Iterator[Any]:
    """Give a client of the broker's database, emptied before and after."""
    client: Any = flow_control.client()
    client.flushdb()
    yield client
    client.flushdb()


class Worker:
    """Takes and runs messages one by one, as a worker does."""

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        self.ran: list[str] = []
        """The arguments of the tasks that ran."""

    def take(self, queue: str = "default") -> dict[str, Any] | None:
        """Take a message and register it as unacknowledged."""
        with celery_app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            message = next((found for found in (self.broker.rpop(name) for name in self._lists(queue)) if found), None)
            if message is None:
                return None
            tag = uuid.uuid4().hex
            self.broker.hset(channel.unacked_key, tag, b"[" + message + f', "", "{queue}"]'.encode())
            self.renew(tag)
            payload = channel._payload(tag, queue, message)
            return dict(payload)

    def renew(self, tag: str, age: float = 0) -> None:
        """Send the heartbeat of a message, `age` seconds ago."""
        seconds, micro = self.broker.time()
        self.broker.zadd(messages.keys().unacked_index, {tag: seconds + micro / 1e6 - age})

    def acknowledge(self, tag: str) -> None:
        """Forget a message that was run, as the next take does."""
        self.broker.hdel(messages.keys().unacked, tag)
        self.broker.zrem(messages.keys().unacked_index, tag)

    def run(self, message: dict[str, Any] | None) -> str | None:
        """Run a message; return the state in which Celery's trace ended."""
        assert message is not None
        with celery_app.connection_for_write() as connection:
            body = connection.default_channel.message_to_python(message).payload
        args, kwargs, _ = body
        headers, properties = message["headers"], message["properties"]
        delivery = {**properties["delivery_info"], "priority": properties["priority"], "redelivered": False}
        request = {**headers, "properties": properties, "delivery_info": delivery}
        task = celery_app.tasks[headers["task"]]
        outcome = trace_task(task, headers["id"], args, kwargs, request, app=celery_app)
        self.acknowledge(properties["delivery_tag"])
        return str(outcome.info.state) if outcome.info else states.SUCCESS

    def drain(self) -> list[str | None]:
        """Run all that is queued; return the states."""
        found = []
        while (message := self.take()) is not None:
            found.append(self.run(message))
        return found

    def wake(self) -> int:
        """Wake what is due, as the thread of a worker does; return the milliseconds until the next."""
        return int(waiting._WAKE(self.broker, [messages.keys().unacked_index], [*waiting._times(), 100]))

    def _lists(self, queue: str) -> list[str]:
        return [queue, *(queue + ending for ending in messages.keys().endings)]


@pytest.fixture
def worker(broker: Any) -> Worker:
    """Give a worker without processes."""
    return Worker(broker)


@pytest.fixture
def make_task(worker: Worker) -> Iterator[Callable[..., Any]]:
    """Give a function that makes a task with these options; it remembers its first argument and calls the second."""
    made: list[Any] = []
    during: dict[str, Callable[[], object]] = {}

    def make(name: str = "", **options: Any) -> Any:
        def body(key: str, do: str = "", tenant: str = "") -> str:
            worker.ran.append(key)
            if do:
                during[do]()
            return key

        task = celery_app.task(name=name or f"test.{secrets.token_hex(4)}", **options)(body)
        celery_app.finalize()
        made.append(task)
        return task

    make.during = during  # type: ignore[attr-defined]
    yield make
    for task in made:
        celery_app.tasks.unregister(task)


def _end(key: str) -> None:
    """Do nothing."""


def _length(broker: Any, queue: str = "default") -> int:
    return int(broker.llen(queue))


def _holding(make_task: Any, worker: Worker, task: Any, *args: str) -> contextlib.AbstractContextManager[None]:
    """Run the next message of the task, and give back the control while it runs."""
    started, done = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        name = secrets.token_hex(4)

        def hold() -> None:
            started.set()
            assert done.wait(20)

        make_task.during[name] = hold
        task.delay(args[0] if args else "holder", name)
        thread = threading.Thread(target=lambda: worker.run(worker.take()))
        thread.start()
        try:
            assert started.wait(20)
            yield
        finally:
            done.set()
            thread.join(20)

    return held()


# --- unique ---


async def test_a_second_call_of_a_unique_task_returns_the_first(make_task: Any, broker: Any) -> None:
    task = make_task(unique=Unique("key"))
    first = task.delay("a")
    second, third = task.delay("a", "other argument"), await enqueue(task.s("a"))
    assert not isinstance(first, Duplicate)
    assert isinstance(second, Duplicate)
    assert isinstance(third, Duplicate)
    assert {second.id, third.id} == {first.id}
    assert task.delay("b").id != first.id
    assert _length(broker) == 2


async def test_of_calls_at_the_same_time_one_is_queued(make_task: Any, broker: Any) -> None:
    task = make_task(unique=Unique("key"))
    results = await asyncio.gather(*(enqueue(task.s("a")) for _ in range(20)))
    assert len({result.id for result in results}) == 1
    assert [isinstance(result, Duplicate) for result in results].count(False) == 1
    assert _length(broker) == 1


@pytest.mark.parametrize("how", ["succeeds", "fails", "is revoked"])
@pytest.mark.parametrize("ignore_result", [True, False])
def test_a_unique_task_may_be_queued_again_when_it_has_ended(
    make_task: Any, worker: Worker, how: str, ignore_result: bool
) -> None:
    task = make_task(unique=Unique("key"), ignore_result=ignore_result)
    make_task.during["fail"] = lambda: 1 / 0
    result = task.delay("a", "fail" if how == "fails" else "")
    if how == "is revoked":
        result.revoke()
    assert isinstance(task.delay("a"), Duplicate)
    worker.drain()
    assert not isinstance(task.delay("a"), Duplicate)


async def test_a_cancelled_unique_task_does_not_hinder_the_next(make_task: Any, worker: Worker) -> None:
    from app.worker.publish import cancel

    task = make_task(unique=Unique("key"))
    first = await enqueue(task.s("a"))
    await cancel(first.id)
    second = await enqueue(task.s("a"))
    assert second.id != first.id
    assert worker.drain() == [states.IGNORED, states.SUCCESS]
    assert worker.ran == ["a"]


def test_a_unique_task_stays_unique_while_it_is_retried(make_task: Any, worker: Worker) -> None:
    task = make_task(unique=Unique("key"), autoretry_for=(ZeroDivisionError,), max_retries=1, default_retry_delay=0)
    make_task.during["fail"] = lambda: 1 / 0
    first = task.delay("a", "fail")
    assert worker.run(worker.take()) == states.RETRY
    assert task.delay("a").id == first.id
    assert worker.drain() == [states.FAILURE]
    assert task.delay("a").id != first.id


def test_until_started_another_call_may_be_queued_while_one_runs(make_task: Any, worker: Worker) -> None:
    task = make_task(unique=Unique("key", until="started"))
    with _holding(make_task, worker, task, "a"):
        second = task.delay("a")
        assert not isinstance(second, Duplicate)
        assert task.delay("a").id == second.id


def test_a_task_whose_key_another_one_holds_does_not_run(make_task: Any, worker: Worker, broker: Any) -> None:
    """Redis may forget: a key expires, or a failover loses it."""
    task = make_task(unique=Unique("key"))
    first = task.delay("a")
    broker.delete(*broker.keys("flow:u:*"))
    second = task.delay("a")
    assert worker.drain() == [states.IGNORED, states.SUCCESS]
    status = read_status(first.id)
    assert status is not None
    assert (status.status, status.error and status.error["message"]) == ("REVOKED", f"duplicate by {second.id}")


def test_a_call_that_could_not_be_queued_does_not_hinder_the_next(
    make_task: Any, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(unique=Unique("key"), rate=Rate(1, 60))
    with monkeypatch.context() as patched:
        patched.setattr("celery.Task.apply_async", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            task.delay("a")
    assert not isinstance(task.delay("a"), Duplicate)


def test_a_process_that_dies_while_it_queues_hinders_the_next_for_a_minute(make_task: Any, broker: Any) -> None:
    task = make_task(unique=Unique("key"))
    name = task.rules.name("u", task.rules.unique, ("a",), {})
    flow_control.call(("EVAL", flow_scripts.ADMIT, 3, name, "", "", "dead", "", 60, "", "", "", ""))
    with pytest.raises(NotQueued):
        task.delay("a")
    assert 0 < broker.ttl(name) <= 60
    broker.delete(name)
    assert not isinstance(task.delay("a"), Duplicate)
    assert broker.ttl(name) > 60


@pytest.mark.parametrize("outbox", [False, True])
async def test_a_call_that_is_rolled_back_does_not_hinder_the_next(make_task: Any, broker: Any, outbox: bool) -> None:
    task = make_task(unique=Unique("key"), rate=Rate(1, 60))
    async with session_scope() as db:
        async with db.begin_nested() as savepoint:
            first = await enqueue(task.s("a"), after_commit=db, outbox=outbox)
            assert (await enqueue(task.s("a"), after_commit=db, outbox=outbox)).id == first.id
            await savepoint.rollback()
        async with asyncio.timeout(5):
            while broker.keys("flow:*"):  # noqa: ASYNC110 - Redis announces no such change
                await asyncio.sleep(0.01)
        second = await enqueue(task.s("a"), after_commit=db, outbox=outbox)
        assert not isinstance(second, Duplicate)
    assert isinstance(await enqueue(task.s("a")), Duplicate)


async def test_a_call_whose_idempotency_key_is_known_does_not_hinder_the_next(make_task: Any, worker: Worker) -> None:
    task = make_task(unique=Unique("key"))
    async with session_scope() as db:
        first = await enqueue(task.s("a"), after_commit=db, idempotency_key="k")
    worker.drain()
    async with session_scope() as db:
        assert (await enqueue(task.s("a"), after_commit=db, idempotency_key="k")).id == first.id
    assert not isinstance(await enqueue(task.s("a")), Duplicate)


async def test_of_two_calls_with_one_idempotency_key_one_counts_for_the_rate(make_task: Any) -> None:
    task, key = make_task(rate=Rate(2, 60)), secrets.token_hex(4)
    both = await asyncio.gather(*(enqueue(task.s("a"), idempotency_key=key) for _ in range(2)))
    assert both[0].id == both[1].id
    assert not isinstance(await enqueue(task.s("b")), Duplicate)


async def test_a_duplicate_is_no_job_of_its_owner(make_task: Any) -> None:
    task, owner = make_task(unique=Unique("key")), f"user-{secrets.token_hex(4)}"
    for _ in range(3):
        await enqueue(task.s("a"), owner)
    backend: Any = celery_app.backend
    assert backend.client.zcard(job_limit.jobs_key(owner)) == 1


@pytest.mark.parametrize("rule", [{"unique": Unique()}, {"rate": Rate(9, 60)}, {"debounce": Debounce(1)}])
def test_what_may_be_refused_is_no_step_of_a_workflow(make_task: Any, rule: dict[str, Any]) -> None:
    task, other = make_task(**rule), make_task()
    for workflow in (
        group(task.s("a"), other.s("b")),
        chord([task.s("a")], other.si("b")),
        chain(task.s("a"), other.si("b")),
    ):
        with pytest.raises(ValueError, match="cannot be a step of a workflow"):
            workflow.apply_async()


# --- rate ---


async def test_calls_over_the_rate_are_refused_with_the_time_to_wait(make_task: Any, broker: Any) -> None:
    task = make_task(rate=Rate(2, per=60, key="key"))
    for _ in range(2):
        task.delay("a")
    for call in (lambda: task.delay("a"), lambda: asyncio.run(_enqueued(task))):
        with pytest.raises(RateLimited, match="may be called 2 times in 60 seconds") as refused:
            await asyncio.to_thread(call)
        assert 50 < refused.value.retry_after <= 60
    assert task.delay("b")
    assert _length(broker) == 3


async def _enqueued(task: Any) -> None:
    await enqueue(task.s("a"))


def test_the_rate_counts_any_period(make_task: Any, broker: Any) -> None:
    task = make_task(rate=Rate(2, per=60, key="key"))
    task.delay("a")
    name = task.rules.name("r", task.rules.rate, ("a",), {})
    (member,) = broker.zrange(name, 0, -1)
    broker.zadd(name, {member: broker.time()[0] - 61})
    task.delay("a")
    task.delay("a")
    with pytest.raises(RateLimited):
        task.delay("a")


# --- concurrency ---


def test_no_more_than_the_limit_run_and_the_next_starts_when_one_ends(
    make_task: Any, worker: Worker, broker: Any
) -> None:
    task = make_task(concurrency=Concurrency(1, "key"))
    with _holding(make_task, worker, task, "a"):
        for number in range(3):
            task.delay("a", tenant=str(number))
        task.delay("b")
        assert worker.drain() == [states.IGNORED] * 3 + [states.SUCCESS]
        assert worker.ran == ["a", "b"], "another key is not limited"
        assert _length(broker) == 0
    assert _length(broker) == 1, "only as many are woken as may start"
    assert worker.drain() == [states.SUCCESS] * 3


def test_a_task_that_waits_is_pending_and_neither_redelivered_nor_retried(make_task: Any, worker: Worker) -> None:
    task = make_task(concurrency=Concurrency(1))
    with _holding(make_task, worker, task):
        result = task.delay("b")
        before = worker.take()
        assert before is not None
        worker.run(before)
        status = read_status(result.id)
        assert status is not None
        assert status.status == states.PENDING
    after = worker.take()
    assert after is not None
    assert after["headers"] == before["headers"]
    assert after["body"] == before["body"]


def test_those_that_wait_start_in_their_order_and_nobody_overtakes_them(make_task: Any, worker: Worker) -> None:
    task = make_task(concurrency=Concurrency(1))
    with _holding(make_task, worker, task):
        for number in range(3):
            task.delay(str(number))
        worker.drain()
    for _ in range(3):
        task.delay("late")
    worker.drain()
    assert worker.ran == ["holder", "0", "1", "2", "late", "late", "late"]


def test_a_new_call_does_not_take_the_slot_of_a_dead_holder_from_those_that_wait(
    make_task: Any, worker: Worker, broker: Any
) -> None:
    task = make_task(concurrency=Concurrency(1))
    name = task.rules.name("c", task.rules.concurrency, ("x",), {})
    worker.renew("tag")
    broker.hset(f"{name}:slots", "dead", "tag")
    task.delay("first")
    worker.drain()
    broker.zrem(messages.keys().unacked_index, "tag")
    task.delay("second")
    assert worker.drain() == [states.IGNORED]
    worker.wake()
    assert worker.drain() == [states.SUCCESS, states.SUCCESS]
    assert worker.ran == ["first", "second"]


def test_a_message_returns_to_the_list_of_its_priority(make_task: Any, worker: Worker, broker: Any) -> None:
    task = make_task(concurrency=Concurrency(1))
    with _holding(make_task, worker, task):
        task.apply_async(("b",), priority=6)
        worker.drain()
    assert broker.llen("default" + messages.keys().ending(6)) == 1
    assert worker.drain() == [states.SUCCESS]


def test_a_slot_is_free_when_its_message_was_not_renewed(make_task: Any, worker: Worker, broker: Any) -> None:
    task = make_task(concurrency=Concurrency(1))
    task.delay("dies")
    dead = worker.take()
    assert dead is not None
    tag = dead["properties"]["delivery_tag"]
    name = task.rules.name("c", task.rules.concurrency, ("dies",), {})
    broker.hset(f"{name}:slots", dead["headers"]["id"], tag)
    task.delay("b")
    assert worker.drain() == [states.IGNORED]
    worker.renew(tag, age=celery_settings.visibility_timeout + 1)
    broker.zadd("flow:waiting", {name: 0})
    worker.wake()
    assert worker.drain() == [states.SUCCESS]


def test_a_slot_is_free_when_its_message_was_requeued(make_task: Any, worker: Worker, broker: Any) -> None:
    task = make_task(concurrency=Concurrency(1))
    name = task.rules.name("c", task.rules.concurrency, ("x",), {})
    broker.hset(f"{name}:slots", "dead", "tag")
    task.delay("b")
    assert worker.drain() == [states.SUCCESS]


def test_a_place_that_was_reserved_for_too_long_goes_to_the_next(
    make_task: Any, worker: Worker, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(concurrency=Concurrency(1))
    with _holding(make_task, worker, task):
        for number in range(2):
            task.delay(str(number))
        worker.drain()
    assert broker.rpop("default"), "the message that was woken is lost"
    name = task.rules.name("c", task.rules.concurrency, ("x",), {})
    broker.zadd("flow:waiting", {name: 0})
    worker.wake()
    assert _length(broker) == 0
    monkeypatch.setattr(waiting, "RESERVED_FOR", -1)
    broker.zadd("flow:waiting", {name: 0})
    worker.wake()
    assert worker.drain() == [states.SUCCESS]


def test_a_task_that_is_revoked_when_it_arrives_gives_its_place_to_the_next(make_task: Any, worker: Worker) -> None:
    """A worker's main process ends it, which does not start it."""
    task = make_task(concurrency=Concurrency(1))
    with _holding(make_task, worker, task):
        for number in range(2):
            task.delay(str(number))
        worker.drain()
    message = worker.take()
    with celery_app.connection_for_write() as connection:
        received = connection.default_channel.message_to_python(message)
    request: Any = AppRequest(received, app=celery_app, task=task)
    request._announce_revoked("revoked", False, None, False)
    assert worker.drain() == [states.SUCCESS]
    assert worker.ran == ["holder", "1"]


def test_tasks_share_a_limit_by_its_scope(make_task: Any, worker: Worker) -> None:
    limit = Concurrency(1, "tenant", scope="shop")
    one, other = make_task(concurrency=limit), make_task(concurrency=limit)
    with _holding(make_task, worker, one):
        other.delay("b")
        assert worker.drain() == [states.IGNORED]
    assert worker.drain() == [states.SUCCESS]


def test_a_task_starts_only_with_room_in_all_of_its_rules(make_task: Any, worker: Worker, broker: Any) -> None:
    task = make_task(concurrency=Concurrency(2), throttle=Throttle(1, 60))
    task.delay("a")
    assert worker.drain() == [states.SUCCESS]
    task.delay("b")
    assert worker.drain() == [states.IGNORED]
    assert broker.hlen(task.rules.name("c", task.rules.concurrency, (), {"key": "b"}) + ":slots") == 0


def test_a_task_that_has_expired_while_it_waited_takes_no_place(make_task: Any, worker: Worker, broker: Any) -> None:
    task = make_task(concurrency=Concurrency(1))
    name = task.rules.name("c", task.rules.concurrency, ("x",), {})
    with _holding(make_task, worker, task):
        for number in range(2):
            task.delay(str(number))
        worker.drain()
        # Each entry has its task id, queue, list, message and expiry.
        expire = "local e = cmsgpack.unpack(redis.call('RPOP', KEYS[1])) e[5] = '1' redis.call('RPUSH', KEYS[1], cmsgpack.pack(e))"
        broker.eval(expire, 1, f"{name}:waiting")
    assert _length(broker) == 2
    assert broker.zcard(f"{name}:woken") == 1


def test_a_task_is_requeued_when_redis_refuses_it_a_slot(
    make_task: Any, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(concurrency=Concurrency(1))
    task.delay("a")

    def refuse(*_: object) -> None:
        raise redis.exceptions.ConnectionError("Redis is gone")

    with monkeypatch.context() as patched:
        patched.setattr(waiting, "_START", refuse)
        assert worker.run(worker.take()) == states.REJECTED
    assert worker.ran == []


def test_a_task_whose_slot_could_not_be_given_back_has_ended(
    make_task: Any, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(concurrency=Concurrency(1))
    task.delay("a")
    task.delay("b")

    def refuse(*_: object) -> None:
        raise redis.exceptions.ConnectionError("Redis is gone")

    with monkeypatch.context() as patched:
        patched.setattr(waiting, "_END", refuse)
        assert worker.run(worker.take()) == states.SUCCESS
    assert worker.drain() == [states.SUCCESS], "its message is acknowledged"


# --- throttle ---


def test_no_more_than_the_limit_start_in_any_period(make_task: Any, worker: Worker, broker: Any) -> None:
    task = make_task(throttle=Throttle(2, per=60, key="key"))
    for _ in range(4):
        task.delay("a")
    task.delay("b")
    assert sorted(worker.drain(), key=str) == sorted([states.SUCCESS] * 3 + [states.IGNORED] * 2, key=str)
    assert 55_000 < worker.wake() <= 60_000
    name = task.rules.name("t", task.rules.throttle, ("a",), {})
    first, _ = broker.zrange(f"{name}:starts", 0, -1)
    broker.zadd(f"{name}:starts", {first: broker.time()[0] - 61})
    broker.zadd("flow:waiting", {name: 0})
    worker.wake()
    assert worker.drain() == [states.SUCCESS]
    assert _length(broker) == 0


# --- debounce ---


def test_only_the_last_of_several_calls_runs(make_task: Any, worker: Worker, broker: Any) -> None:
    task = make_task(debounce=Debounce(60, "tenant"))
    results = [task.delay(str(number)) for number in range(3)]
    assert worker.drain() == [states.IGNORED] * 3
    assert worker.ran == []
    name = task.rules.name("d", task.rules.debounce, ("x",), {})
    broker.hset(name, "due", 0)
    broker.zadd("flow:waiting", {name: 0})
    worker.wake()
    assert worker.drain() == [states.IGNORED, states.IGNORED, states.SUCCESS]
    assert worker.ran == ["2"]
    status = read_status(results[0].id)
    assert status is not None
    assert (status.status, status.error and status.error["message"]) == ("REVOKED", f"superseded by {results[2].id}")


def test_each_call_starts_the_period_again_up_to_the_longest_wait(make_task: Any, broker: Any) -> None:
    task = make_task(debounce=Debounce(60, max_wait=90))
    name = task.rules.name("d", task.rules.debounce, ("x",), {})
    task.delay("a")
    now = broker.time()[0]
    assert now + 58 < float(broker.hget(name, "due")) < now + 62
    broker.hset(name, mapping={"first": now - 50, "due": now + 10})
    task.delay("b")
    assert now + 38 < float(broker.hget(name, "due")) < now + 42


def test_a_call_that_could_not_be_queued_replaces_no_other(
    make_task: Any, worker: Worker, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(debounce=Debounce(60))
    task.delay("a")
    with monkeypatch.context() as patched:
        patched.setattr("celery.Task.apply_async", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            task.delay("b")
    name = task.rules.name("d", task.rules.debounce, ("x",), {})
    broker.hset(name, "due", 0)
    assert worker.drain() == [states.SUCCESS]
    assert worker.ran == ["a"]


# --- deadline ---


def test_a_task_that_expires_before_it_starts_does_not_run(make_task: Any, worker: Worker) -> None:
    """Celery looks when the message arrives only."""
    task = make_task(expires=0.001)
    result = task.delay("a")
    assert worker.drain() == [states.IGNORED]
    status = read_status(result.id)
    assert status is not None
    assert (status.status, status.error and status.error["message"]) == ("REVOKED", "expired")
    assert worker.ran == []


def test_a_task_that_has_expired_does_not_wait(make_task: Any, worker: Worker) -> None:
    task = make_task(concurrency=Concurrency(1))
    with _holding(make_task, worker, task):
        result = task.apply_async(("late",), expires=0.001)
        worker.drain()
        status = read_status(result.id)
    assert status is not None
    assert status.status == states.REVOKED


# --- queue depth ---


@pytest.fixture
def short_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit each queue to three messages."""
    monkeypatch.setattr(celery_settings, "max_queue_depth", 3)


@pytest.mark.usefixtures("short_queues")
async def test_more_messages_than_a_queue_may_have_are_refused(make_task: Any, broker: Any) -> None:
    task = make_task()
    await enqueue(task.s("a").set(priority=6))
    with pytest.raises(QueueTooLong, match="1 tasks already wait in the queue 'default'"):
        await enqueue_many([task.s("b")] * 3)
    await enqueue_many([task.s("b")] * 2)
    with pytest.raises(QueueTooLong):
        await enqueue(task.s("c"))
    await enqueue(task.s("d").set(queue="high"))
    assert task.delay("beat and tasks are not refused")
    assert _length(broker) == 3


@pytest.mark.usefixtures("short_queues")
async def test_messages_that_wait_for_a_rule_belong_to_their_queue(make_task: Any, worker: Worker) -> None:
    task = make_task(concurrency=Concurrency(1))
    with _holding(make_task, worker, task):
        for _ in range(3):
            task.delay("b")
        worker.drain()
        with pytest.raises(QueueTooLong):
            await enqueue(task.s("c"))
    worker.drain()
    assert await enqueue(task.s("c"))


@pytest.mark.usefixtures("short_queues")
async def test_of_messages_at_the_same_time_as_many_are_queued_as_have_room(make_task: Any, broker: Any) -> None:
    task = make_task()
    answers = await asyncio.gather(*(enqueue(task.s("a")) for _ in range(10)), return_exceptions=True)
    assert [isinstance(answer, QueueTooLong) for answer in answers].count(False) == 3
    assert _length(broker) == 3


@pytest.mark.usefixtures("short_queues")
async def test_a_workflow_is_refused_when_the_queue_of_its_first_task_is_full(make_task: Any) -> None:
    task = make_task(queue_name="high")
    large = task.s("x" * 100_000)
    workflows = [
        chain(task.s("a"), task.si("b")),
        group(task.s("a"), task.s("b")),
        chord([task.s("a")], task.si("b")),
        large,
    ]
    await enqueue_many([task.s("a")] * 3)
    for workflow in workflows:
        with pytest.raises(QueueTooLong, match="3 tasks already wait in the queue 'high'"):
            await enqueue(workflow)
    assert await enqueue(group())


# --- all ---


def test_keys_are_the_same_for_the_publisher_and_the_worker(make_task: Any) -> None:
    task = make_task(concurrency=Concurrency(1, lambda key, do="", tenant="": [tenant, key]))
    rule = task.rules.concurrency
    assert task.rules.name("c", rule, ("a",), {"tenant": (1, 2)}) == task.rules.name(
        "c", rule, ["a"], {"tenant": [1, 2]}
    )
    assert task.rules.name("c", rule, ("a",), {}) != task.rules.name("c", rule, ("b",), {})
    assert len(task.rules.name("c", rule, ("a" * 100_000,), {})) < 250


def test_a_key_that_is_no_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the key 'user' of .* is not one of its parameters"):
        celery_app.task(name="test.wrong", unique=Unique("user"), lazy=False)(_end)
    celery_app.tasks.pop("test.wrong", None)


@pytest.mark.parametrize(
    "rule", [lambda: Concurrency(0), lambda: Throttle(1, 0), lambda: Rate(10**6, 1), lambda: Debounce(9, max_wait=1)]
)
def test_limits_are_bounded(rule: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        rule()


def test_a_task_fails_whose_key_cannot_be_made(make_task: Any, worker: Worker) -> None:
    task = make_task(concurrency=Concurrency(1, lambda key, *_: 1 / 0))
    task.delay("a")
    assert worker.drain() == [states.FAILURE]
    assert worker.ran == []


async def test_a_rule_that_redis_does_not_judge_queues_nothing(
    make_task: Any, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(unique=Unique("key"))

    async def refuse(*_: object) -> None:
        raise redis.exceptions.ConnectionError("Redis is gone")

    monkeypatch.setattr("app.worker.messages.execute", refuse)
    with pytest.raises(QueueUnavailable):
        await enqueue(task.s("a"))
    assert _length(broker) == 0
