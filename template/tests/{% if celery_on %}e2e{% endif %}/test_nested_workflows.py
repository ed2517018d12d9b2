"""Workflows of every nesting end, whatever becomes of their members."""

import asyncio
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from celery import chain, chord, group, states
from celery.result import AsyncResult

from app.worker import revocation
from app.worker.publish import enqueue
from app.worker.records import step_ids
from app.worker.status import read_status
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_worker, wait_until

CANVASES = 40
SEED = 20261127


class Canvases:
    """Makes workflows, and says of each whether all of its members succeed."""

    def __init__(self, tasks: Any, seed: int) -> None:
        self._tasks = tasks
        self._random = random.Random(seed)

    def make(self, depth: int) -> tuple[Any, bool]:
        """Return a workflow that is nested up to `depth`, and whether its members succeed."""
        kind = self._random.choice(("leaf", "chain", "chord", "chord")) if depth else "leaf"
        if kind == "leaf":
            return self.leaf()
        parts = [self.make(depth - 1) for _ in range(self._random.randint(2, 3))]
        good = all(part[1] for part in parts)
        signatures = [part[0] for part in parts]
        if kind == "chain":
            return chain(*signatures), good
        if self._random.random() < 0.3:
            return chain(group(signatures), self._tasks("collect").s()), good
        return chord(signatures, self._tasks("collect").s()), good

    def leaf(self) -> tuple[Any, bool]:
        """Return a task: most succeed."""
        echo = self._tasks("echo").si(1)
        what = self._random.choices(("good", "fails", "revoked", "expired"), (85, 7, 4, 4))[0]
        if what == "fails":
            return self._tasks("fail").si(), False
        if what == "revoked":
            echo.set(task_id=str(uuid.uuid4()))
            revocation.store([echo.options["task_id"]])
        if what == "expired":
            echo.set(expires=(datetime.now(UTC) - timedelta(minutes=1)).isoformat())
        return echo, what == "good"


@pytest.fixture(scope="module")
def worker(broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give a worker."""
    running = start_worker(tmp_path_factory.mktemp("worker") / "worker.log", **FAST)
    yield running
    running.stop()


def _status(task_id: str) -> str:
    status = read_status(task_id)
    return status.status if status else "UNKNOWN"


def _has_ended(task_id: str) -> bool:
    return _status(task_id) in states.READY_STATES


def _queue(signature: Any) -> AsyncResult[Any]:
    return asyncio.run(enqueue(signature))


def test_workflows_end_in_every_nesting(worker: Running, probe_task: Any) -> None:
    canvases = Canvases(probe_task, SEED)
    made = [canvases.make(3) for _ in range(CANVASES)]
    assert 10 < sum(good for _, good in made) < CANVASES - 10
    queued = [(_queue(signature), good, signature) for signature, good in made]

    for result, _, signature in queued:
        for task_id in step_ids(result):
            wait_until(partial(_has_ended, task_id), 20, f"{task_id} of {signature} to end")
    for result, good, signature in queued:
        status = read_status(result.id)
        assert status is not None
        assert (status.status == states.SUCCESS) == good, f"{status} of {signature}"


def test_the_failed_member_is_named(worker: Running, probe_task: Any) -> None:
    echo, collect = probe_task("echo"), probe_task("collect")
    failing = probe_task("fail").si().set(task_id=str(uuid.uuid4()))
    result = _queue(chord([chord([echo.si(1), failing], collect.s()), echo.si(3)], collect.s()))
    wait_until(lambda: _status(result.id) == states.FAILURE, 20, "the chord to fail")
    status = read_status(result.id)
    assert status is not None
    assert status.error is not None
    assert status.error["type"] == "ChordError"
    assert failing.options["task_id"] in status.error["message"]
    assert "as it should" in status.error["message"]
