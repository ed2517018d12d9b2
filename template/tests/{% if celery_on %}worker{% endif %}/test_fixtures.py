"""`queued`, `assert_queued` and `drain`, as the tests of a project use them."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import chord

from app.core.celery import celery_app
from app.core.database import session_scope
from app.tasks.process_task import process_task
from app.worker import outbox, revocation
from app.worker.broker import broker_client
from app.worker.publish import enqueue
from app.worker.status import read_status
from tests.worker.fixtures import AssertQueued, Drain, Queued

pytestmark = pytest.mark.anyio

MakeTask = Callable[..., Any]


@pytest.fixture
def make_task() -> Iterator[MakeTask]:
    """Give a function that registers a function as a task."""
    made: list[Any] = []

    def make(function: Callable[..., Any], **options: Any) -> Any:
        # Celery makes code of it, where the name of a lambda is none.
        function.__name__ = "body"
        task = celery_app.task(name=f"test.{secrets.token_hex(4)}", **options)(function)
        celery_app.finalize()
        made.append(task)
        return task

    yield make
    for task in made:
        celery_app.tasks.unregister(task)


def _state(task_id: str) -> str | None:
    status = read_status(task_id)
    return status.status if status else None


async def test_a_queued_task_is_found_by_its_arguments(assert_queued: AssertQueued, make_task: MakeTask) -> None:
    task = make_task(lambda number, when=None, tags=(): None)
    moment = datetime(2026, 11, 29, tzinfo=UTC)
    first = (await enqueue(task.s(1, tags=("a", "b")))).id
    second = task.delay(number=2, when=moment).id
    assert assert_queued(task) == [first, second]
    assert assert_queued(task, number=1, tags=["a", "b"]) == [first]
    assert assert_queued(task, 2, moment) == [second]
    with pytest.raises(
        AssertionError, match=rf"{task.name}\(3\) in any queue is not queued; queued is:\s+{task.name}\(1"
    ):
        assert_queued(task, 3)


def test_nothing_is_queued_at_first(queued: Queued, assert_queued: AssertQueued) -> None:
    assert queued() == []
    with pytest.raises(AssertionError, match="queued is: nothing"):
        assert_queued(process_task)


def test_tasks_run_in_the_order_of_the_queues_and_of_their_calls(drain: Drain, make_task: MakeTask) -> None:
    ran: list[str] = []

    def note(value: str) -> None:
        ran.append(value)

    task = make_task(note)
    for queue in ("long", "default", "high"):
        for number in "12":
            task.apply_async((queue + number,), queue=queue)
    assert drain() == [task.name] * 6
    assert ran == ["high1", "high2", "default1", "default2", "long1", "long2"]
    assert drain() == []


def test_what_a_task_queues_runs_too_and_results_are_stored(drain: Drain, make_task: MakeTask) -> None:
    child = make_task(lambda: 7)
    parent = make_task(lambda: child.delay().id)
    queued = parent.delay().id
    assert drain() == [parent.name, child.name]
    status = read_status(queued)
    assert status is not None
    assert status.status == "SUCCESS"
    assert _state(str(status.result)) == "SUCCESS"


def test_retries_and_countdowns_do_not_wait(drain: Drain, make_task: MakeTask) -> None:
    attempts: list[int] = []

    def body(self: Any) -> None:
        attempts.append(self.request.retries)
        if len(attempts) < 3:
            raise self.retry(countdown=3600)

    task = make_task(body, bind=True)
    queued = task.apply_async(countdown=3600).id
    assert drain() == [task.name] * 3
    assert attempts == [0, 1, 2]
    assert _state(queued) == "SUCCESS"


def test_a_failure_is_raised_and_the_other_tasks_stay_queued(drain: Drain, queued: Queued, make_task: MakeTask) -> None:
    def fail() -> None:
        raise LookupError("no such order")

    task = make_task(fail)
    first, second = task.delay().id, task.delay().id
    with pytest.raises(LookupError, match="no such order"):
        drain()
    assert (_state(first), _state(second)) == ("FAILURE", "PENDING")
    assert [one.task_id for one in queued()] == [second]
    task.delay()
    assert drain(raise_failures=False) == [task.name] * 2
    assert _state(second) == "FAILURE"


def test_nothing_stays_unacknowledged(drain: Drain, make_task: MakeTask) -> None:
    def fail() -> None:
        raise LookupError

    make_task(fail).delay()
    process_task.delay({})
    drain(raise_failures=False)
    with broker_client() as client:
        assert [key for key in client.keys("*") if key.startswith(b"unacked")] == []


def test_a_cancelled_task_does_not_run(drain: Drain, make_task: MakeTask) -> None:
    ran: list[int] = []
    task = make_task(lambda: ran.append(1))
    queued = task.delay().id
    revocation.cancel(queued, terminate=False)
    drain()
    assert (ran, _state(queued)) == ([], "REVOKED")


def test_the_body_of_a_chord_runs_after_its_header(drain: Drain, make_task: MakeTask) -> None:
    add, total = make_task(lambda a, b: a + b), make_task(lambda numbers: numbers[0] + numbers[1])
    result = chord([add.s(1, 2), add.s(3, 4)], total.s()).apply_async()
    assert drain() == [add.name, add.name, total.name]
    status = read_status(result.id)
    assert status is not None
    assert status.result == 10


async def test_async_tasks_run_in_an_async_test(drain: Drain, make_task: MakeTask) -> None:
    async def body() -> str:
        async with session_scope() as db:
            return str((await db.connection()).dialect.name)

    queued = (await enqueue(make_task(body).s())).id
    drain()
    status = read_status(queued)
    assert status is not None
    assert status.status == "SUCCESS", status


def test_async_tasks_run_in_a_test_without_an_event_loop(drain: Drain, make_task: MakeTask) -> None:
    async def body() -> None:
        return None

    queued = make_task(body).delay().id
    drain()
    assert _state(queued) == "SUCCESS"


async def test_tasks_in_the_outbox_run(drain: Drain, queued: Queued, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait() -> None:
        """Leave it to the next pass of a relay."""

    monkeypatch.setattr(outbox, "kick", wait)
    async with session_scope() as db:
        task_id = (await enqueue(process_task.s({}), after_commit=db, outbox=True)).id
    assert queued() == []
    assert drain() == [process_task.name]
    assert _state(task_id) == "SUCCESS"


def test_tasks_that_queue_each_other_for_ever_are_stopped(drain: Drain, make_task: MakeTask) -> None:
    tasks: list[Any] = []
    task = make_task(lambda: tasks[0].delay().id)
    tasks.append(task)
    task.delay()
    with pytest.raises(pytest.fail.Exception, match=f"3 tasks ran, and there are more; the last ones were {task.name}"):
        drain(at_most=3)


def test_an_unknown_task_is_named(drain: Drain, queued: Queued) -> None:
    celery_app.send_task("test.unknown", queue="default")
    with pytest.raises(pytest.fail.Exception, match=r"registers the queued task test\.unknown"):
        drain()
    assert [one.name for one in queued()] == ["test.unknown"]
