"""The owner of a task, the limit on unfinished jobs, and priorities; without a worker."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group, states
from celery._state import _task_stack
from celery.app.task import Context
from kombu.exceptions import OperationalError

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker import job_limit, owners
from app.worker.job_limit import TooManyJobs
from app.worker.publish import enqueue, status_of
from app.worker.status import read_status
from app.worker.task import _request

pytestmark = pytest.mark.anyio


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> str:
    """Give an owner without jobs, who may have three."""
    monkeypatch.setattr(celery_settings, "max_jobs_per_owner", 3)
    return f"user-{secrets.token_hex(8)}"


@pytest.fixture(autouse=True)
def empty_queue() -> Iterator[None]:
    """Purge the queue before and after."""
    with celery_app.connection_for_write() as connection:
        connection.default_channel.queue_purge("high")
        yield
        connection.default_channel.queue_purge("high")


def _backend() -> Any:
    return celery_app.backend


async def _owner_of(task_id: str) -> str | None:
    status = await status_of(task_id)
    assert status is not None
    return status.owner


@contextlib.contextmanager
def _running(task: Any, **headers: object) -> Iterator[None]:
    """Pretend to be a worker's process that runs the task, be its body `def` or `async def`."""
    task.push_request(id=secrets.token_hex(8), **headers)
    _task_stack.push(task)
    token = _request.set(task.request)
    try:
        yield
    finally:
        _request.reset(token)
        _task_stack.pop()
        task.pop_request()


async def test_a_job_has_its_owner_and_others_have_none(ada: str) -> None:
    assert await _owner_of((await enqueue(process_task.s({}), ada)).id) == ada
    assert await _owner_of((await enqueue(process_task.s({}))).id) is None


async def test_every_step_of_a_workflow_has_the_owner(ada: str) -> None:
    last = await enqueue(chain(process_task.s({}), process_task.si({})), ada)
    assert [await _owner_of(result.id) for result in (last, last.parent)] == [ada, ada]
    callback = await enqueue(chord([process_task.s({}), process_task.s({})], process_task.si({})), ada)
    assert [await _owner_of(result.id) for result in (callback, *callback.parent.results)] == [ada] * 3
    members = await enqueue(group(process_task.s({}), process_task.s({})), ada)
    assert [await _owner_of(result.id) for result in members.results] == [ada] * 2


async def test_what_a_task_queues_has_its_owner(ada: str) -> None:
    with _running(process_task, owner=ada):
        queued = process_task.delay({})
        awaited = await enqueue(process_task.s({}))
    assert [await _owner_of(result.id) for result in (queued, awaited)] == [ada, ada]


async def test_an_owner_outlives_the_record_of_a_task_that_waited_for_long(ada: str) -> None:
    task_id = (await enqueue(process_task.s({}), ada)).id
    for key in (_backend().get_key_for_task(task_id), owners.owner_key(task_id)):
        _backend().client.delete(key)
    _backend().store_result(task_id, None, states.STARTED, request=Context({"id": task_id, "owner": ada}))
    assert await _owner_of(task_id) == ada
    # What is stored without the message, such as a chord's failure, knows it from before.
    _backend().store_result(task_id, {}, states.SUCCESS)
    assert await _owner_of(task_id) == ada
    assert _backend().client.ttl(owners.owner_key(task_id)) > 0


async def test_more_jobs_are_refused_until_one_has_ended(ada: str) -> None:
    jobs = [(await enqueue(process_task.s({}), ada)).id for _ in range(3)]
    with pytest.raises(TooManyJobs, match="You have 3 jobs that have not ended"):
        await enqueue(process_task.s({}), ada)
    assert await enqueue(process_task.s({}), f"{ada}-other")
    assert await enqueue(process_task.s({})), "what has no owner is not counted"
    _backend().store_result(jobs[0], None, states.STARTED)
    with pytest.raises(TooManyJobs):
        await enqueue(process_task.s({}), ada)
    for state in (states.SUCCESS, states.FAILURE, states.REVOKED):
        ended = jobs.pop(0)
        _backend().store_result(ended, ValueError("x") if state != states.SUCCESS else {}, state)
        # Its record may have expired before the next job comes.
        _backend().client.delete(_backend().get_key_for_task(ended))
        jobs.append((await enqueue(process_task.s({}), ada)).id)
        with pytest.raises(TooManyJobs):
            await enqueue(process_task.s({}), ada)


async def test_a_job_whose_end_another_program_stored_is_not_counted(ada: str) -> None:
    jobs = [(await enqueue(process_task.s({}), ada)).id for _ in range(3)]
    _backend().client.set(_backend().get_key_for_task(jobs[1]), '{"status": "SUCCESS", "result": null}')
    assert await enqueue(process_task.s({}), ada)


async def test_jobs_at_the_same_time_are_counted_one_after_the_other(ada: str) -> None:
    answers = await asyncio.gather(*(enqueue(process_task.s({}), ada) for _ in range(10)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, TooManyJobs)]
    assert (len(answers) - len(refused), len(refused)) == (3, 7)


async def test_a_job_that_was_not_queued_is_not_counted(ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as patched:
        patched.setattr("app.worker.sending._queue", away)
        patched.setattr("app.worker.sending.on_loop", away)
        for job in (process_task.s({}), chain(process_task.s({}), process_task.si({}))) * 4:
            with pytest.raises(Exception, match="does not answer"):
                await enqueue(job, ada)
    assert _backend().client.zcard(job_limit.jobs_key(ada)) == 0


async def test_a_job_that_is_queued_again_under_its_id_is_one_job(ada: str) -> None:
    for _ in range(4):
        await enqueue(process_task.s({}).set(task_id=f"{ada}-again"), ada)
    task_id, left = _backend().client.zrange(job_limit.jobs_key(ada), 0, -1, withscores=True)[0]
    assert task_id == f"{ada}-again".encode()
    assert left - _backend().client.time()[0] > job_limit.COUNTED_FOR - 60


async def test_a_process_that_dies_before_it_queued_a_job_leaves_it_for_a_minute(ada: str) -> None:
    for _ in range(3):
        assert job_limit.admit(ada, process_task.s({}))
    with pytest.raises(TooManyJobs):
        job_limit.admit(ada, process_task.s({}))
    now = _backend().client.time()[0]
    scores = [score for _, score in _backend().client.zrange(job_limit.jobs_key(ada), 0, -1, withscores=True)]
    assert all(now < score <= now + 60 for score in scores)
    # A minute later.
    for member in _backend().client.zrange(job_limit.jobs_key(ada), 0, -1):
        _backend().client.zadd(job_limit.jobs_key(ada), {member: now - 1})
    assert job_limit.admit(ada, process_task.s({}))


async def test_a_job_is_counted_for_a_day_and_its_entry_expires(ada: str) -> None:
    task_id = (await enqueue(process_task.s({}), ada)).id
    now = _backend().client.time()[0]
    assert _backend().client.zscore(job_limit.jobs_key(ada), task_id) == pytest.approx(
        now + job_limit.COUNTED_FOR, abs=5
    )
    assert 0 < _backend().client.ttl(job_limit.jobs_key(ada)) <= job_limit.COUNTED_FOR


async def test_what_operators_schedule_overtakes_the_jobs_of_users(ada: str) -> None:
    users = [(await enqueue(process_task.s({}), ada)).id for _ in range(3)]
    with _running(process_task, owner=ada):
        users.append(process_task.delay({}).id)
    scheduled = process_task.delay({}).id
    with celery_app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        order = [channel.basic_get("high", no_ack=True).headers["id"] for _ in range(5)]
    assert order == [scheduled, *users]


async def test_a_priority_that_is_given_stays(ada: str) -> None:
    await enqueue(process_task.s({}).set(priority=9), ada)
    with celery_app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        assert channel.basic_get("high", no_ack=True).properties["priority"] == 9


def test_the_key_of_an_owner_is_no_record() -> None:
    _backend().store_result("task", {}, states.SUCCESS, request=Context({"id": "task", "owner": "ada"}))
    assert read_status("task/owner") is None
