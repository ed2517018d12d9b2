"""mypy accepts a right call of a task and rejects a wrong one, however it is queued."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import celery
import pytest
from celery.canvas import Signature
from celery.result import AsyncResult

from app.core.celery import celery_app
from app.tasks.process_task import process_task
from app.worker.task import AppTask
from tests import ROOT

SNIPPET = """
from typing import Any, assert_type

from celery import chain, chord, group

from app.core.celery import celery_app, with_db_init
from app.worker.publish import enqueue, enqueue_many
from app.worker.task import AppTask
from app.worker.typing import AsyncResult, PartialSignature, Signature, TaskOptions

OPTIONS: TaskOptions = {"queue_name": "high", "max_retries": 3}


@celery_app.task
def plain(number: int, text: str = "") -> list[int]:
    return [number]


@celery_app.task(name="typing.add", queue_name="high")
def add(x: int, y: int) -> int:
    return x + y


@celery_app.task(name="typing.nothing")
def nothing() -> None: ...


@celery_app.task(name="typing.bound", bind=True, max_retries=3)
def bound(self: AppTask, number: int) -> str:
    raise self.retry(countdown=1)


@celery_app.task(name="typing.coroutine", **OPTIONS)
@with_db_init
async def coroutine(number: int, *, text: str = "") -> str:
    return text


@celery_app.task(name="typing.bound_coroutine", bind=True, **OPTIONS)
async def bound_coroutine(self: Any, number: int) -> str:
    return str(number)


async def right() -> None:
    assert_type(plain(1), list[int])
    assert_type(coroutine(1), str)
    assert_type(plain.delay(1, text="x"), AsyncResult[list[int]])
    assert_type(coroutine.delay(1, text="x").get(timeout=1), str)
    assert_type(bound.delay(1).get(), str)
    assert_type(bound_coroutine.delay(1), AsyncResult[str])
    assert_type(plain.apply_async((1,), countdown=3), AsyncResult[list[int]])
    assert_type(plain.apply_async(args=(1, "x"), queue="long"), AsyncResult[list[int]])
    assert_type(add.apply_async((1,), {"y": 2}), AsyncResult[int])
    assert_type(add.apply_async(kwargs={"x": 1, "y": 2}), AsyncResult[int])
    assert_type(add.apply_async([1, 2]), AsyncResult[int])
    assert_type(nothing.apply_async(countdown=3), AsyncResult[None])
    assert_type(bound.apply_async((1,)), AsyncResult[str])
    assert_type(add.s(1, y=2), Signature[int])
    assert_type(add.si(1, 2), Signature[int])
    assert_type(add.s(1, 2).set(queue="long"), Signature[int])
    assert_type(bound_coroutine.s(1), Signature[str])
    assert_type(add.s(2), PartialSignature[int])
    assert_type(add.s(), PartialSignature[int])
    assert_type(await enqueue(plain.s(1)), AsyncResult[list[int]])
    assert_type(await enqueue(coroutine.s(1), "owner"), AsyncResult[str])
    assert_type(await enqueue_many([add.s(1, 2), add.s(3, 4)]), list[AsyncResult[int]])
    assert_type(await enqueue_many((coroutine.s(number) for number in range(3)), owner="x"), list[AsyncResult[str]])
    await enqueue(chain(add.s(1, 2), add.s(3), bound.s()))
    await enqueue(add.s(1, 2) | add.s(3))
    await enqueue(chord(group(add.s(number, 1) for number in range(3)), plain.s()))


async def wrong() -> None:
    plain("1")  # wrong
    plain.delay("1")  # wrong
    plain.delay()  # wrong
    nothing.delay(1)  # wrong
    bound.delay(1, 2)  # wrong
    bound.delay("1")  # wrong
    coroutine.delay("1")  # wrong
    coroutine.delay(1, "x")  # wrong
    bound_coroutine.delay("1")  # wrong
    plain.delay(1).get().upper()  # wrong
    add.apply_async(("1", 2))  # wrong
    add.apply_async((1,))  # wrong
    add.apply_async()  # wrong
    coroutine.apply_async((1, "x"))  # wrong
    bound.apply_async(("1",))  # wrong
    add.s("1", 2)  # wrong
    add.s("1")  # wrong
    add.s(1, z=2)  # wrong
    bound.s(1, 2)  # wrong
    coroutine.s("1")  # wrong
    add.si(1)  # wrong
    await enqueue(add.s(1))  # wrong
    await enqueue(add.s())  # wrong
    await enqueue(add)  # wrong
    await enqueue_many([add.s(1)])  # wrong
    (await enqueue(bound.s(1))).get().append(1)  # wrong
"""


@pytest.mark.processes
def test_mypy_rejects_each_wrong_call_and_no_right_one(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET, encoding="utf-8")
    # With the cache of `make check`, so that it takes a second.
    command = [sys.executable, "-m", "mypy", "--no-pretty", "--no-error-summary", str(snippet)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert not output.stderr, output.stderr
    wrong = [number for number, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# wrong")]
    errors = {int(number) for number in re.findall(r"snippet\.py:(\d+): error: ", output.stdout)}
    assert sorted(errors) == wrong, output.stdout


def test_at_run_time_a_task_is_celerys_own() -> None:
    task: Any = process_task
    assert isinstance(celery_app, celery.Celery)
    assert isinstance(task, AppTask)
    assert isinstance(task.s({}), Signature)
    assert isinstance(task.delay({}), AsyncResult)
