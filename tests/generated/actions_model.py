"""A model of what users and workers do to tasks, which hypothesis plays step by step: with the messages that are really queued.

test_records_model.py copies this into a generated project and runs it there, on the Redis of the project's tests. What happens while
a task runs is done inside of its body, in another thread: cancellations, retries, another delivery of the same message, and so on.
"""

import asyncio
import base64
import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from celery import states
from celery.app.trace import trace_task
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.worker import dead_letters, flow_control, history, result_backend
from app.worker.broker import LuaScript, result_key, results_client
from app.worker.history import Filter, TaskRecord
from app.worker.job_limit import TooManyJobs, jobs_key
from app.worker.publish import RetryRefused, cancel, enqueue, enqueue_many, retry
from app.worker.replay import replay
from app.worker.status import read_status

OWNERS, KEYS, QUEUES = ("user-1", "user-2", None), ("a", "b", None), ("default", "long")
ENDS = ("succeed", "fail", "retry", "die", "progress")
MOST_JOBS = 6

_inside: list[Callable[[], None]] = []
"""What happens while the next task runs."""
_end: list[str] = []


class _Died(BaseException):
    """The process of the task is killed."""


@celery_app.task(name="model.task", bind=True, max_retries=2)
def task(self: Any, queue: str) -> int:
    """Let others do something, and end as the model says."""
    end = _end.pop()
    happens = _inside.copy()
    _inside.clear()
    for one in happens:
        one()
    if end == "progress":
        self.update_state(state="PROGRESS", meta={"n": 1})
    if end == "fail":
        raise ValueError("\udcff")
    if end == "retry":
        raise self.retry(countdown=0, exc=ValueError("later"))
    if end == "die":
        raise _Died
    return 1


def _elsewhere(call: Callable[[], Any]) -> Any:
    """Run something as another process would: not in the task that runs here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


@contextmanager
def _answers_lost() -> Iterator[None]:
    """Run every script twice, as after a connection that broke before the answer."""

    def twice(run: Callable[..., Any]) -> Callable[..., Any]:
        def run_twice(*args: Any) -> Any:
            run(*args)
            return run(*args)

        return run_twice

    kept = {name: twice(getattr(result_backend, name)) for name in ("_STORE", "_START", "_END")}
    patched: Any = patch.multiple
    with patched(result_backend, **kept), patch.object(LuaScript, "__call__", twice(LuaScript.__call__)):
        yield


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.limit = celery_settings.max_jobs_per_owner
        celery_settings.max_jobs_per_owner = MOST_JOBS
        self.redis = results_client()
        self.redis.flushdb()
        self.broker: Any = flow_control.client()
        self.broker.flushdb()
        self.ids: dict[str, None] = {}
        """The tasks that were queued, in this order."""
        self.keys: dict[tuple[str | None, str], str] = {}
        self.held: list[dict[str, Any]] = []
        """Messages that workers have taken and not acknowledged."""
        self.ended: dict[str, TaskRecord] = {}
        self.results: dict[str, str] = {}
        self.retried: dict[str, str] = {}
        self.buried = 0
        self.expired: set[str] = set()
        """Tasks whose result has expired: a late delivery may store another, which their record ignores."""

    def teardown(self) -> None:
        try:
            self.everything_comes_to_an_end()
        finally:
            celery_settings.max_jobs_per_owner = self.limit
            _end.clear()
            _inside.clear()

    # --- clients ---

    @rule(owner=st.sampled_from(OWNERS), key=st.sampled_from(KEYS), queue=st.sampled_from(QUEUES))
    def enqueue(self, owner: str | None, key: str | None, queue: str) -> None:
        call = task.s("x").set(queue=queue)
        before = self.queued()
        try:
            task_id = asyncio.run(enqueue(call, owner, idempotency_key=key)).id
        except TooManyJobs:
            assert owner
            assert len(self.jobs(owner)) == MOST_JOBS
            assert self.queued() == before
            return
        is_known = key is not None and (owner, key) in self.keys
        assert self.queued() - before == (0 if is_known else 1)
        if key is not None:
            assert self.keys.setdefault((owner, key), task_id) == task_id
        self.ids[task_id] = None

    @initialize(owner=st.sampled_from(OWNERS), number=st.integers(2, 4))
    def begin(self, owner: str | None, number: int) -> None:
        self.enqueue_many(owner, number)

    @rule(owner=st.sampled_from(OWNERS), number=st.integers(1, 4))
    def enqueue_many(self, owner: str | None, number: int) -> None:
        before = self.queued()
        try:
            results = asyncio.run(enqueue_many([task.s("x")] * number, owner))
        except TooManyJobs:
            assert self.queued() == before
            return
        assert self.queued() - before == number
        self.ids |= dict.fromkeys(result.id for result in results)

    def which(self, number: int) -> str | None:
        known = list(self.ids)
        return known[number % len(known)] if known else None

    @rule(number=st.integers(0, 50))
    def cancel(self, number: int) -> None:
        if task_id := self.which(number):
            status = _elsewhere(lambda: asyncio.run(cancel(task_id)))
            assert status is None or status.status not in {"PENDING", "RETRY"}

    @rule(number=st.integers(0, 50))
    def retry_twice_at_once(self, number: int) -> None:
        task_id = self.which(number)
        if task_id is None:
            return
        record, before = history.read(task_id), self.queued()

        async def both() -> list[Any]:
            return list(await asyncio.gather(retry(task_id), retry(task_id), return_exceptions=True))

        outcomes = _elsewhere(lambda: asyncio.run(both()))
        new = {outcome.id for outcome in outcomes if hasattr(outcome, "id")}
        if not new:
            assert record is None or all(isinstance(one, RetryRefused | TooManyJobs) for one in outcomes), outcomes
            assert self.queued() == before
            return
        assert record is not None
        assert record.state in states.PROPAGATE_STATES
        assert len(new) == 1, outcomes
        (new_id,) = new
        assert self.retried.setdefault(task_id, new_id) == new_id
        assert self.queued() - before == (0 if new_id in self.ids else 1)
        self.ids[new_id] = None

    @precondition(lambda self: self.buried)
    @rule(number=st.integers(0, 50))
    def replay_twice_at_once(self, number: int) -> None:
        letters = [letter.letter_id for letter in dead_letters.letters(self.broker)]
        if not letters:
            self.buried = 0
            return
        letter_id, before = letters[number % len(letters)], self.queued()
        with ThreadPoolExecutor(2) as threads:
            new = [one for one in threads.map(lambda _: replay(self.broker, letter_id), range(2)) if one]
        assert len(new) == 1, new
        assert self.queued() - before == 1
        self.ids |= dict.fromkeys(new)

    # --- workers ---

    @rule(queue=st.sampled_from(QUEUES))
    def take(self, queue: str) -> None:
        """Take a message, of this queue if it has one."""
        for name in sorted(self.broker.keys("*"), key=lambda name: not name.startswith(queue.encode())):
            if self.broker.type(name) == b"list" and (text := self.broker.rpop(name)):
                self.held.append(json.loads(text))
                return

    @rule(
        number=st.integers(0, 20),
        end=st.sampled_from(ENDS),
        happens=st.lists(
            st.tuples(st.sampled_from(["cancel", "retry", "deliver", "flush"]), st.integers(0, 50)), max_size=2
        ),
        is_acknowledged=st.booleans(),
        loses_answers=st.booleans(),
        other_end=st.sampled_from(ENDS),
    )
    def run(
        self,
        number: int,
        end: str,
        happens: list[tuple[str, int]],
        is_acknowledged: bool,
        loses_answers: bool,
        other_end: str,
    ) -> None:
        """Run a message that a worker holds, perhaps while others do something."""
        self.take(QUEUES[number % 2])
        if not self.held:
            return
        message = self.held[number % len(self.held)]
        doing: dict[str, Callable[[int], Any]] = {
            "cancel": self.cancel,
            "retry": self.retry_twice_at_once,
            # The visibility timeout is over, and another worker has it.
            "deliver": lambda _: _elsewhere(lambda: self.deliver(message, other_end, is_redelivered=True)),
            "flush": lambda _: self.redis.execute_command("SCRIPT FLUSH"),
        }
        during = [functools.partial(doing[name], which) for name, which in happens]
        with _answers_lost() if loses_answers else contextlib.nullcontext():
            is_over = self.deliver(message, end, during)
        if is_over and is_acknowledged:
            self.held.remove(message)
        else:
            message["redelivered"] = True

    def deliver(
        self,
        message: dict[str, Any],
        end: str,
        happens: list[Callable[[], Any]] | None = None,
        *,
        is_redelivered: bool = False,
    ) -> bool:
        """Run a message as a worker does; return whether its process lived."""
        _end.append(end)
        depth = len(_end)
        _inside.extend(happens or [])
        args, kwargs, embed = json.loads(base64.b64decode(message["body"]))
        headers, properties = message["headers"], message["properties"]
        is_redelivered = is_redelivered or message.get("redelivered", False)
        delivery = {
            **properties["delivery_info"],
            "priority": properties.get("priority"),
            "redelivered": is_redelivered,
        }
        request = {**headers, **embed, "hostname": "w", "delivery_info": delivery}
        try:
            trace_task(task, headers["id"], args, kwargs, request, app=celery_app)
        except _Died:
            return False
        finally:
            # It did not run: it was revoked, or has succeeded.
            del _end[depth - 1 :]
            _inside.clear()
        return True

    @rule(number=st.integers(0, 20), is_acknowledged=st.booleans())
    def fail_and_retry(self, number: int, is_acknowledged: bool) -> None:
        """Run a message that fails, and retry its task; two of them may be of one task."""
        self.take(QUEUES[number % 2])
        if not self.held:
            return
        message = self.held[number % len(self.held)]
        self.deliver(message, "fail")
        if is_acknowledged:
            self.held.remove(message)
        else:
            message["redelivered"] = True
        self.retry_twice_at_once(list(self.ids).index(message["headers"]["id"]))

    @rule(number=st.integers(0, 20))
    def bury(self, number: int) -> None:
        """Make a dead letter of a message that a worker holds, twice: its acknowledgement was lost."""
        self.take(QUEUES[number % 2])
        if not self.held:
            return
        message = self.held.pop(number % len(self.held))
        received = SimpleNamespace(
            body=base64.b64decode(message["body"]),
            headers=message["headers"],
            properties=message["properties"],
            content_type=message["content-type"],
            content_encoding=message["content-encoding"],
            delivery_info={"routing_key": message["properties"]["delivery_info"]["routing_key"]},
            ack=lambda: None,
        )
        error = ValueError("redelivered too often")
        celery_app.backend.mark_as_failure(message["headers"]["id"], error)
        before = len(dead_letters.letters(self.broker))
        for _ in range(2):
            dead_letters.store(received, error)
        self.buried += 1
        assert len(dead_letters.letters(self.broker)) <= before + 1

    # --- time ---

    @rule(number=st.integers(0, 50))
    def the_result_of_a_task_that_ended_expires(self, number: int) -> None:
        task_id = self.which(number)
        if task_id in self.ended:
            self.redis.delete(result_key(task_id), result_key(task_id) + b"/owner")
            self.results.pop(task_id, None)
            self.expired.add(task_id)

    # --- what holds after each step ---

    def queued(self) -> int:
        return sum(self.broker.llen(name) for name in self.broker.keys("*") if self.broker.type(name) == b"list")

    def jobs(self, owner: str) -> set[str]:
        return {member.decode() for member in self.redis.zrange(jobs_key(owner), 0, -1)}

    @invariant()
    def a_final_state_never_changes(self) -> None:
        for task_id in self.ids:
            record, status = history.read(task_id), read_status(task_id)
            assert record is not None
            if task_id in self.ended:
                assert record == self.ended[task_id]
            elif record.state in states.READY_STATES:
                assert record.finished is not None
                self.ended[task_id] = record
            if status is None:
                continue
            if task_id in self.results:
                assert status.status == self.results[task_id]
            elif status.ready:
                self.results[task_id] = status.status

    @invariant()
    def a_record_and_its_result_have_one_state(self) -> None:
        for task_id in self.ids:
            record, status = history.read(task_id), read_status(task_id)
            if record and status:
                shown = "STARTED" if status.status == "PROGRESS" else status.status
                assert record.state == shown or task_id in self.expired

    @invariant()
    def each_task_is_listed_once(self) -> None:
        found: list[TaskRecord] = []
        cursor = None
        while True:
            page = history.page(Filter(), cursor, limit=5)
            found += page.records
            cursor = page.next
            if cursor is None:
                break
        assert sorted(record.task_id for record in found) == sorted(self.ids)
        prefix = result_key("/records/").decode()
        expected: dict[str, set[str]] = {"all": set(self.ids)} if self.ids else {}
        for record in found:
            names = [f"name/{record.name}", f"queue/{record.queue}"]
            names += [f"owner/{record.owner}"] if record.owner else []
            names += [f"state/{record.state}"] if record.state != "SUCCESS" else []
            for name in names:
                expected.setdefault(name, set()).add(record.task_id)
        indexes = {
            key.decode().removeprefix(prefix): {one.decode() for one in self.redis.zrange(key, 0, -1)}
            for key in self.redis.scan_iter(f"{prefix}*")
        }
        assert indexes == expected

    @invariant()
    def only_unfinished_jobs_are_counted(self) -> None:
        for owner in filter(None, OWNERS):
            jobs = self.jobs(owner)
            assert jobs <= self.ids.keys()
            for task_id in jobs:
                record = history.read(task_id)
                assert record is not None
                assert record.owner == owner
                assert record.state not in states.READY_STATES, record

    def everything_comes_to_an_end(self) -> None:
        for _ in range(1000):
            for queue in QUEUES:
                self.take(queue)
            if not self.held:
                break
            self.deliver(self.held.pop(), "succeed")
        assert self.queued() == 0
        for task_id in self.ids:
            record = history.read(task_id)
            assert record is not None
            assert record.state in states.READY_STATES, record
        for owner in filter(None, OWNERS):
            assert self.jobs(owner) == set()


TestActions = Model.TestCase
TestActions.settings = settings(
    max_examples=int(os.environ.get("FORGE_MODEL_EXAMPLES", "100")),
    stateful_step_count=30,
    deadline=None,
    phases=(Phase.generate, *((Phase.shrink,) if "FORGE_MODEL_SHRINK" in os.environ else ())),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
