"""Fixtures for tests of code that queues tasks, in every test of the project; docs/testing-tasks.md shows them.

`queued` gives what waits in the queues, `assert_queued` checks it, `drain` runs it here, and `running_worker` runs it in a worker.
"""

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.processes import Running

AssertQueued = Callable[..., list[str]]
"""The type of the fixture `assert_queued`."""

Drain = Callable[..., list[str]]
"""The type of the fixture `drain`."""

_running: list[str] = []


@dataclass(frozen=True)
class QueuedTask:
    """A message in a queue."""

    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    task_id: str

    def __str__(self) -> str:
        """Return it as a call."""
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.name}({', '.join(arguments)}) in {self.queue}"


Queued = Callable[[], list[QueuedTask]]
"""The type of the fixture `queued`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start a worker: `make test` leaves them out."""
    for item in items:
        if "running_worker" in getattr(item, "fixturenames", ()):
            item.add_marker("processes")


@pytest.fixture
def queued() -> Iterator[Queued]:
    """Give a function that returns what is queued, in the order in which `drain` runs it. The queues are empty at first."""
    if _running:
        pytest.fail(f"{_running[0]} takes what is queued: use it in a module without queued, assert_queued and drain.")
    _empty_redis()
    yield _read_queues
    _empty_redis()


@pytest.fixture
def assert_queued(queued: Queued) -> AssertQueued:
    """Give a function that fails unless a task is queued with these arguments, and returns the ids of those that are.

    Without arguments, any will do.
    """

    def check(task: Any, *args: Any, **kwargs: Any) -> list[str]:
        found = queued()
        ids = [one.task_id for one in found if one.name == task.name and _has_arguments(task, one, args, kwargs)]
        expected = QueuedTask(task.name, list(args), kwargs, "any queue", "")
        there = "".join(f"\n  {one}" for one in found) or " nothing"
        assert ids, f"{expected} is not queued; queued is:{there}"
        return ids

    return check


@pytest.fixture
def drain(queued: Queued) -> Drain:
    """Give a function that runs here what is queued, and what that queues, and returns the names of the tasks in their order.

    It takes the tasks as a worker does: those of `high`, then `default`, then `long`, and those in the outbox. Countdowns and
    delays of retries do not wait. It stops at the first task that fails, and raises what that raised; with
    `raise_failures=False` it continues, and the failure is in the task's status.
    """

    def run(*, raise_failures: bool = True, at_most: int = 1000) -> list[str]:
        return _drain(raise_failures=raise_failures, at_most=at_most)

    return run


@pytest.fixture(scope="module")
def running_worker(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Running]":
    """Start a worker for the tests of the module, with empty queues; `text()` is what it has logged."""
    from tests.e2e.processes import start_worker

    _empty_redis()
    worker = start_worker(tmp_path_factory.mktemp("worker") / "worker.log")
    _running.append("the fixture running_worker")
    yield worker
    _running.clear()
    worker.stop()
    _empty_redis()


def _empty_redis() -> None:
    import app.core.celery  # noqa: F401
    from app.worker.broker import broker_client, results_client

    with broker_client() as client:
        client.flushdb()
    results_client().flushdb()


def _queues() -> list[str]:
    from app.core.celery import celery_app

    return [queue.name for queue in celery_app.conf.task_queues]


def _read_queues() -> list[QueuedTask]:
    from app.worker.broker import broker_client, own_channel

    found = []
    with own_channel() as channel, broker_client() as client:
        for queue in _queues():
            for step in channel.priority_steps:
                for text in reversed(client.lrange(channel._q_for_pri(queue, step), 0, -1)):
                    message = channel.Message(json.loads(text), channel=channel)
                    args, kwargs, _ = message.payload
                    found.append(QueuedTask(message.headers["task"], args, kwargs, queue, message.headers["id"]))
    return found


def _has_arguments(task: Any, one: QueuedTask, args: Any, kwargs: Any) -> bool:
    from kombu.serialization import dumps, loads

    if not (args or kwargs):
        return True
    kind, encoding, text = dumps(task.without_models(args, kwargs), serializer="json")
    # As a message has them: a tuple is a list there.
    expected = loads(text, kind, encoding)
    return bool(_bound(task, *expected) == _bound(task, one.args, one.kwargs))


def _bound(task: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments by the names of the task's parameters, with its defaults."""
    bound = inspect.signature(task.run).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _drain(*, raise_failures: bool, at_most: int) -> list[str]:
    from app.core.celery import celery_app
    from app.core.database import close_database, open_database
    from app.worker import event_loop, outbox
    from app.worker.broker import own_channel

    celery_app.loader.import_default_modules()
    ran: list[str] = []
    event_loop.run(open_database())
    try:
        with own_channel() as channel:
            while True:
                message = next((found for queue in _queues() if (found := channel.basic_get(queue))), None)
                if message is None:
                    if event_loop.run(outbox.relay()):
                        continue
                    return ran
                if len(ran) == at_most:
                    message.requeue()
                    pytest.fail(f"{at_most} tasks ran, and there are more; the last ones were {', '.join(ran[-5:])}.")
                ran.append(message.headers["task"])
                failure = _run(message)
                if failure is not None and raise_failures:
                    raise failure
    finally:
        event_loop.run(close_database())


def _run(message: Any) -> BaseException | None:
    """Run a message as the solo pool of a worker does, and return the exception with which its task failed."""
    from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError

    from app.core.celery import celery_app
    from app.worker.request import AppRequest

    name = message.headers["task"]
    if name not in celery_app.tasks:
        message.requeue()
        pytest.fail(f"no module in app/tasks/ registers the queued task {name}.")
    request = AppRequest(
        message,
        app=celery_app,
        task=celery_app.tasks[name],
        hostname="drain",
        on_ack=message.ack_log_error,
        on_reject=message.reject_log_error,
    )
    pool = _Pool()
    try:
        request.execute_using_pool(pool)
    except TaskRevokedError:
        return None
    return None if isinstance(pool.error, Ignore | Reject | Retry) else pool.error


class _Pool:
    """Runs a task in this thread, and keeps its exception."""

    error: BaseException | None = None

    def apply_async(self, target: Any, args: Any, callback: Any, accept_callback: Any, **_: object) -> None:
        """Run it and report the outcome."""
        from billiard.einfo import ExceptionWithTraceback
        from celery.concurrency.base import apply_target

        def ended(outcome: Any) -> None:
            is_failed, value = outcome[0], outcome[1]
            if is_failed:
                error = value.exception
                self.error = error.exc if isinstance(error, ExceptionWithTraceback) else error
            callback(outcome)

        apply_target(target, args, callback=ended, accept_callback=accept_callback)
