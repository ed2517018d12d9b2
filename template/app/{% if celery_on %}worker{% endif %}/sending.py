"""Send the messages of tasks with their records, and count the jobs of their owner: for `publish`, `bulk` and `in_session`."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar, cast

import structlog
from celery import current_app
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker import idempotency, job_limit, owners, queue_depth, records
from app.worker.broker import QueueUnavailable, in_thread, within_limit
from app.worker.flow_control import Duplicate, NotQueued
from app.worker.idempotency import Key
from app.worker.job_limit import Jobs
from app.worker.messages import Collected, collect, on_loop
from app.worker.pipeline import Command, Commands, execute, failures
from app.worker.task import is_in_task
from app.worker.typing import AsyncResult, Signature

R = TypeVar("R")

_logger = structlog.get_logger(__name__)


async def publish_on_loop(signature: Any, owner: str | None) -> AsyncResult[R]:
    """Queue a single task without a thread.

    Raises:
        app.worker.job_limit.TooManyJobs, NotQueued: a limit refuses it.
        app.worker.serializer.InvalidArguments: a message cannot contain its arguments.
        redis.exceptions.RedisError: Redis refused it, or does not answer; then it may be queued.
    """
    jobs = await admit(owner, [job_limit.new_id(signature)])

    async def send_both(to_record: list[Command], messages: list[Command]) -> None:
        await send(to_record, messages, jobs)

    try:
        with owners.owned_by(owner):
            result: AsyncResult[R] = await on_loop(signature.apply_async, send_both, task_id=jobs.task_ids[0])
    except Exception:
        await forget(jobs)
        raise
    if isinstance(result, Duplicate):
        await forget(jobs)
    return result


async def publish_once(signature: Any, owner: str | None, key: Key, *, limited: bool = True) -> AsyncResult[Any]:
    """Queue a single task, or return the one that was queued with this key before; `limited`: if the owner's limit admits it.

    Raises:
        app.worker.idempotency.IdempotencyKeyReused: the key was used for another call.
        app.worker.job_limit.TooManyJobs, NotQueued, app.worker.serializer.InvalidArguments, redis.exceptions.RedisError:
            see `publish_on_loop`.
        app.worker.broker.QueueUnavailable: Redis does not answer.
    """
    earlier = (await execute(Commands(broker=[("GET", key.name)]))).broker
    raise_first(earlier)
    if earlier[0] is not None:
        return queued_task(idempotency.queued_id(earlier[0], key.call, signature.task))
    if is_depth_limited():
        await in_thread(queue_depth.check_first, signature)
    task_id = job_limit.new_id(signature)
    jobs = Jobs(owner, [task_id], [task_id])
    with owners.owned_by(owner):
        made: Collected[AsyncResult[Any]] = await collect(signature.apply_async, task_id=task_id)
    if made.message is None:
        # A unique task that another call queued: the next call with the key gets it too.
        value = f"{key.call} {made.result.id}"
        raise_first((await execute(Commands(broker=[("SET", key.name, value, "NX", "EX", key.expires)]))).broker)
        return made.result
    _, queue, message = made.message
    async with undoing(made.undo):
        if limited:
            jobs = await admit(owner, [task_id])
        elif owner:
            raise_first((await execute(Commands(before=[job_limit.addition(owner, [task_id])]))).before)
    try:
        once = idempotency.Once(queue, key.name, f"{key.call} {task_id}", message)
        replies = (await execute(Commands(broker=[idempotency.publication([once], key.expires)]))).broker
        raise_first(replies)
        (outcome,) = replies[0]
        if outcome:
            # Another call was faster.
            await undo(made.undo)
            await forget(jobs)
            return queued_task(idempotency.queued_id(outcome, key.call, signature.task))
    except Exception as error:
        if isinstance(error, ResponseError):
            # Redis refused it: it is not queued.
            await undo(made.undo)
        await forget(jobs)
        raise
    # Not before: the record of a task that is not queued would be wrong. A worker that is faster has stored a state.
    await send(made.record, [], jobs)
    return made.result


def publish_in_thread(signature: Signature[R], owner: str | None) -> AsyncResult[R]:
    """Queue a task or a workflow as Celery does, which blocks.

    Raises:
        app.worker.job_limit.TooManyJobs, NotQueued, app.worker.serializer.InvalidArguments, redis.exceptions.RedisError:
            see `publish_on_loop`.
        kombu.exceptions.OperationalError: the broker does not answer.
    """
    if owner is None:
        return _queue(signature, None)
    jobs = job_limit.admit(owner, signature)
    with owners.owned_by(owner):
        try:
            result = _queue(signature, jobs.task_ids[0] if jobs else None)
        except BaseException:
            if jobs:
                with contextlib.suppress(RedisError):
                    job_limit.remove(jobs)
            raise
    if isinstance(result, Duplicate) and jobs:
        job_limit.remove(jobs)
    elif jobs:
        try:
            job_limit.confirm(jobs)
        except RedisError as error:
            # It is queued: after an error the caller would queue it twice.
            _logger.warning("job_not_counted", task_ids=jobs.task_ids, error=error_repr(error))
    return result


def _queue(signature: Signature[R], task_id: str | None) -> AsyncResult[R]:
    options: dict[str, Any] = {"task_id": task_id} if task_id else {}
    try:
        result = signature.apply_async(**options)
    except AttributeError as error:
        # kombu uses a channel that the failure of another publisher has closed.
        if error.obj is None and error.name == "client":
            raise OperationalError("the connection to the broker was closed") from error
        raise
    if result.parent is not None:
        records.record_steps(result, owners.current_owner(None))
    return result


async def send(to_record: list[Command], messages: list[Command], jobs: Jobs, recorded: Sequence[str] = ()) -> None:
    """Store the records, queue the messages and count the jobs: in one round trip if it is one server.

    What is refused leaves no record; `recorded` are the ids of those that were stored before.

    Raises:
        app.worker.queue_depth.QueueTooLong: a queue has no room.
        redis.exceptions.RedisError: the broker refused the messages, or does not answer; then they may be queued.
    """
    limit = celery_settings.max_queue_depth if is_depth_limited() else 0
    publication = queue_depth.publication(messages, limit) if messages else []
    replies = await execute(Commands(to_record, publication, job_limit.confirmation(jobs)))
    try:
        queue_depth.check_queued(replies.broker)
    except (ResponseError, NotQueued):
        refused = records.forget([*recorded, *records.new(replies.before)])
        for error in failures((await execute(Commands(before=refused))).before):
            # The record expires.
            _logger.warning("task_not_forgotten", task_ids=jobs.task_ids[:10], error=error_repr(error))
            break
        raise
    await records.check(to_record, replies.before, jobs.task_ids)
    for error in failures(replies.after):
        # It is queued: after an error the caller would queue it twice.
        _logger.warning("job_not_counted", task_ids=jobs.task_ids[:10], error=error_repr(error))


async def admit(owner: str | None, task_ids: list[str]) -> Jobs:
    """Count jobs that are about to be queued, if there is an owner.

    Raises:
        app.worker.job_limit.TooManyJobs: the limit is reached.
        redis.exceptions.RedisError: Redis does not answer.
    """
    if not owner:
        return Jobs(None, task_ids, [])
    replies = (await execute(Commands(before=[job_limit.admission(owner, task_ids)]))).before
    raise_first(replies)
    return job_limit.admitted(owner, task_ids, replies[0])


async def forget(jobs: Jobs) -> None:
    """Do not count jobs that could not be queued; if Redis does not answer, they are counted for a minute."""
    await execute(Commands(before=job_limit.removal(jobs)))


@contextlib.asynccontextmanager
async def undoing(commands: list[Command]) -> AsyncIterator[None]:
    """Undo what was stored for a message that is not sent because of an error in the block."""
    try:
        yield
    except BaseException:
        await undo(commands)
        raise


async def undo(commands: list[Command]) -> None:
    """Send the broker what undoes that of a message that is not sent; what fails is logged."""
    if not commands:
        return
    try:
        async with within_limit():
            raise_first((await execute(Commands(broker=commands))).broker)
    except QueueUnavailable as error:
        # What was stored expires.
        _logger.warning("task_not_forgotten", error=error_repr(error.__cause__ or error))


def is_depth_limited() -> bool:
    """Return whether `CELERY_MAX_QUEUE_DEPTH` applies here: not to what a task queues."""
    return celery_settings.max_queue_depth > 0 and not is_in_task()


def raise_first(replies: list[Any]) -> None:
    """Raise the first exception among replies.

    Raises:
        redis.exceptions.RedisError: Redis refused a command, or does not answer.
    """
    for error in failures(replies):
        raise error


def queued_task(task_id: str) -> AsyncResult[Any]:
    """Return the result of a task that was queued before."""
    return cast("AsyncResult[Any]", current_app.AsyncResult(task_id))
