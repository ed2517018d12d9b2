"""Queue, read, wait for, cancel and retry tasks from `async def` code, without blocking the event loop."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import structlog
from celery import current_app
from celery.canvas import Signature as TaskSignature
from celery.canvas import _chain, chord, group
from celery.exceptions import QueueNotFound
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from app.core.config.celery import celery_settings
from app.worker import history, idempotency, job_limit, owners, queue_depth, records, rerun, revocation
from app.worker.broker import QueueUnavailable, check_queue, in_thread, within_limit
from app.worker.flow_control import Duplicate, NotQueued, RateLimited, is_judged_when_queued
from app.worker.idempotency import Key
from app.worker.memory_limit import QueueFull, check_memory
from app.worker.messages import Collected, collect, on_loop, one_of_many
from app.worker.pipeline import Command, Commands, execute, failures
from app.worker.queue_depth import QueueTooLong
from app.worker.rerun import RetryRefused
from app.worker.serializer import InvalidArguments
from app.worker.status import TaskStatus, read_status
from app.worker.task import is_in_task
from app.worker.typing import AsyncResult, Signature

__all__ = [
    "Duplicate",
    "NotQueued",
    "QueueFull",
    "QueueTooLong",
    "QueueUnavailable",
    "RateLimited",
    "RetryRefused",
    "cancel",
    "cancel_many",
    "check_queue",
    "enqueue",
    "enqueue_many",
    "enqueue_once",
    "in_thread",
    "retry",
    "status_of",
    "wait_for",
]

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

R = TypeVar("R")

MAX_MANY = 1000
"""Tasks of one call of `enqueue_many`."""

MAX_MANY_BYTES = 32 * 1024 * 1024
"""Bytes of the messages of one call of `enqueue_many`, which Redis takes in one step."""

_POLL_INTERVAL = 0.1
_SMALL_VALUES, _SMALL_LENGTH = 1000, 50_000
"""How much is made into JSON on the event loop: about a millisecond."""

_AT_ONCE = 10
_RECORDS_AT_ONCE = 300
"""Of many tasks, between which the event loop does other work."""

_logger = structlog.get_logger(__name__)


async def enqueue(
    signature: Signature[R],
    owner: str | None = None,
    *,
    after_commit: "AsyncSession | None" = None,
    outbox: bool = False,
    idempotency_key: str | None = None,
) -> AsyncResult[R]:
    """Queue a task, or a chain, group or chord: `await enqueue(send_email_task.s(...).set(queue="high"))`.

    The options are for single tasks; docs/database-and-tasks.md says which one when.

    Args:
        signature: what to queue.
        owner: the owner of the job, who may have a limited number of them; a group does not count. In a task, None is the
            owner of that task.
        after_commit: a database session. The task is queued when its transaction is committed, never if that is rolled back.
        outbox: store the task in the session's transaction, also while Redis is down; a relay publishes it. It is not refused
            by the owner's limit.
        idempotency_key: with the key of an earlier call, return that call's task and queue nothing. Kept for 24 hours for each
            owner; with a session, committed with it.

    Raises:
        ValueError: an option cannot be used with this signature, or without a session.
        app.worker.eager_mode.EagerModeRefused: `task_always_eager` is set.
        app.worker.idempotency.IdempotencyKeyReused: the key was used for another task or other arguments.
        app.worker.serializer.InvalidArguments: a message cannot contain the arguments, or they are too large for an option.
        app.worker.job_limit.TooManyJobs: the owner has `CELERY_MAX_JOBS_PER_OWNER` unfinished jobs.
        QueueFull: Redis uses more than `CELERY_PUBLISH_MEMORY_LIMIT` of its memory limit; never raised in a task.
        QueueUnavailable: Redis refused or did not answer in `CELERY_PUBLISH_TIMEOUT` seconds; the task may still run.
    """
    if after_commit is not None or outbox or idempotency_key is not None:
        _check_single(signature)
        if after_commit is not None:
            return await _publish_in_session(signature, owner, after_commit, outbox, idempotency_key)
        if outbox:
            raise ValueError("outbox needs the session in whose transaction the task is stored: after_commit=session.")
    async with within_limit():
        await check_memory()
        if idempotency_key is not None:
            return await _publish_once(signature, owner, idempotency.key_of_call(owner, idempotency_key, signature))
        if _is_task(signature) and _is_small(signature):
            return await _publish_on_loop(signature, owner)
    if _is_depth_limited():
        await in_thread(queue_depth.check_first, signature)
    return await in_thread(_publish, signature, owner)


async def enqueue_once(signature: Signature[Any], owner: str | None, key: Key) -> AsyncResult[Any]:
    """Queue a single task, or return the one that was queued with this key before.

    For a key that is not made of the call's arguments; `enqueue` has one that is.

    Raises:
        ValueError: it is a chain, group or chord.
        app.worker.idempotency.IdempotencyKeyReused: the key was used with another `call`.
        app.worker.serializer.InvalidArguments, app.worker.job_limit.TooManyJobs, NotQueued, QueueFull, QueueUnavailable:
            see `enqueue`.
    """
    _check_single(signature)
    return await _enqueue_once(signature, owner, key)


async def enqueue_many(signatures: Iterable[Signature[R]], owner: str | None = None) -> list[AsyncResult[R]]:
    """Queue up to `MAX_MANY` tasks in one step, and return their results in the same order.

    All of them are queued or none; with Celery's `task_send_sent_event`, options such as `connection`, or a task with `unique`, `rate`
    or `debounce`, one after the other. After `QueueUnavailable` it may still be all: give the tasks a `task_id` if they are to be
    queued again under the same ids. Each task is a job of the owner: the limit admits all or none.

    Raises:
        ValueError: there are more than `MAX_MANY` signatures, or one is a chain, group or chord.
        app.worker.serializer.InvalidArguments: a message cannot contain the arguments of one, they are too large for this
            function, or all of them are.
        app.worker.job_limit.TooManyJobs, QueueFull, QueueUnavailable: see `enqueue`.
    """
    given = list(signatures)
    if len(given) > MAX_MANY:
        raise ValueError(f"{len(given)} tasks, where one call queues {MAX_MANY}; call enqueue_many several times.")
    if not all(isinstance(signature, TaskSignature) and not _is_workflow(signature) for signature in given):
        raise ValueError("enqueue_many queues tasks; use enqueue for a chain, group or chord.")
    if not all(map(_is_small, given)):
        raise InvalidArguments(
            "arguments are too large for enqueue_many; use enqueue, or store them and queue their name."
        )
    token = one_of_many.set(True)
    try:
        if not all(map(_is_task, given)) or any(is_judged_when_queued(one.task) for one in given):
            return [await enqueue(signature, owner) for signature in given]
        if not given:
            return []
        async with within_limit():
            await check_memory()
        return await _publish_many(given, owner)
    finally:
        one_of_many.reset(token)


async def status_of(task_id: str) -> TaskStatus | None:
    """Return the status of the task, or None for an unknown id.

    Raises:
        QueueUnavailable: see `enqueue`.
    """
    status = await in_thread(read_status, task_id)
    return status if status is not None else await _find_in_outbox(task_id)


async def wait_for(task_id: str, seconds: float) -> TaskStatus | None:
    """Return the task's status when it has ended, at the latest after `seconds`; the event loop is not blocked.

    Raises:
        QueueUnavailable: see `enqueue`.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        status = await status_of(task_id)
        if status is None or status.ready or asyncio.get_running_loop().time() >= deadline:
            return status
        await asyncio.sleep(_POLL_INTERVAL)


async def cancel(task_id: str, *, terminate: bool = True) -> TaskStatus | None:
    """Cancel a task and return its status afterwards, or None for an unknown id.

    A task that waits, has a countdown or is to be retried does not run: REVOKED. A running one is terminated in a prefork
    worker if `terminate` is true; a thread cannot be terminated and runs to its end. A task that has ended does not change.

    Raises:
        QueueUnavailable: see `enqueue`. The task may be cancelled nevertheless.
    """
    status = await in_thread(_cancel, task_id, terminate)
    if status is not None or await _find_in_outbox(task_id) is None:
        return status
    # The relay publishes it, and no worker runs it.
    return await in_thread(_revoke, task_id, terminate)


async def cancel_many(task_ids: Sequence[str], *, terminate: bool = True) -> None:
    """Cancel up to `MAX_MANY` tasks, of which those that have ended do not change; see `cancel`. None may be in the outbox.

    Raises:
        ValueError: there are more.
        QueueUnavailable: see `enqueue`. The same call may be made again.
    """
    if len(task_ids) > MAX_MANY:
        raise ValueError(f"{len(task_ids)} tasks, where one call cancels {MAX_MANY}.")
    await in_thread(revocation.cancel_many, task_ids, terminate=terminate)


async def retry(task_id: str, *, limited: bool = True) -> AsyncResult[Any] | None:
    """Run a task that has failed or was revoked once more, as a new task of the same owner; return that, or None for an unknown id.

    It has the arguments, the queue and the priority of the first one, which does not change. As long as that one has a record,
    each further call returns the same new task: if that fails too, retry that one.

    Args:
        task_id: the task that has ended.
        limited: whether the limit on the owner's jobs may refuse it, which counts it in any case.

    Raises:
        RetryRefused: the task has not ended or has succeeded, or its arguments are not stored.
        app.worker.job_limit.TooManyJobs: see `enqueue`.
        NotQueued, QueueFull, QueueUnavailable: see `enqueue`.
    """
    (ended,) = await in_thread(rerun.read, [task_id])
    return await retry_ended(ended, limited=limited) if ended else None


async def retry_ended(ended: rerun.Ended, *, limited: bool = True) -> AsyncResult[Any]:
    """Run a task once more, given what is stored of it; see `retry`.

    Raises:
        RetryRefused, app.worker.job_limit.TooManyJobs, NotQueued, QueueFull, QueueUnavailable: see `retry`.
    """
    record = ended.record
    signature = rerun.signature(ended)
    try:
        return await _enqueue_once(signature, record.owner, rerun.key(record), limited=limited)
    except (InvalidArguments, QueueNotFound) as error:
        raise RetryRefused(f"Task {record.task_id} cannot run again: {error}.") from error


def _is_workflow(signature: Any) -> bool:
    return isinstance(signature, _chain | group | chord)


def _is_single(signature: Any) -> bool:
    """Return whether Celery makes one message of it, and sends that itself."""
    return (
        isinstance(signature, TaskSignature)
        and not _is_workflow(signature)
        and not signature.options.keys() & {"connection", "producer", "publisher"}
    )


def _is_task(signature: Any) -> bool:
    """Return whether one message is all that Celery sends for it, and sends itself."""
    return _is_single(signature) and not current_app.conf.task_send_sent_event


def _check_single(signature: Any) -> None:
    if not _is_single(signature):
        raise ValueError(
            "after_commit, outbox and idempotency_key are for a single task; queue one that queues the chain, group or chord."
        )
    if not _is_small(signature):
        raise InvalidArguments("arguments are too large for this option; store them and queue their name.")


def _is_small(signature: Any) -> bool:
    """Return whether the message is made in so little time that the event loop may do it."""
    values, length = 0, 0
    stack: list[Any] = [signature.args, signature.kwargs]
    while stack:
        one = stack.pop()
        values += 1
        if isinstance(one, str | bytes):
            length += len(one)
        elif isinstance(one, dict):
            values += len(one)
            stack.extend(one)
            stack.extend(one.values())
        elif isinstance(one, list | tuple):
            values += len(one)
            stack.extend(one)
        if values > _SMALL_VALUES or length > _SMALL_LENGTH:
            return False
    return True


async def _publish_on_loop(signature: Any, owner: str | None) -> AsyncResult[R]:
    task_ids = [job_limit.new_id(signature)]
    await _admit(owner, task_ids)

    async def send(to_record: list[Command], messages: list[Command]) -> None:
        await _send(to_record, messages, owner, task_ids)

    try:
        with owners.owned_by(owner):
            result: AsyncResult[R] = await on_loop(signature.apply_async, send, task_id=task_ids[0])
    except Exception:
        await _forget(owner, task_ids)
        raise
    if isinstance(result, Duplicate):
        await _forget(owner, task_ids)
    return result


async def _publish_in_session(
    signature: Any, owner: str | None, session: "AsyncSession", outbox: bool, idempotency_key: str | None
) -> AsyncResult[Any]:
    # SQLAlchemy: a worker imports it only for tasks that use a database.
    from app.worker import outbox as outboxes  # noqa: PLC0415
    from app.worker.after_commit import hold  # noqa: PLC0415
    from app.worker.once import claim  # noqa: PLC0415

    task_id = job_limit.new_id(signature)
    if not outbox:
        # Now, so that an outage is an error with nothing committed.
        async with within_limit():
            await check_memory()
            _raise_first((await execute(Commands(broker=[("PING",)]))).broker)
    with owners.owned_by(owner):
        made: Collected[AsyncResult[Any]] = await collect(signature.apply_async, task_id=task_id)
    if made.message is None:
        return made.result
    undo = functools.partial(_undo, made.undo) if made.undo else None
    async with _undoing(made.undo):
        if idempotency_key is not None:
            key = idempotency.key_of_call(owner, idempotency_key, signature)
            earlier = await claim(session, key.name, f"{key.call} {task_id}", timedelta(seconds=key.expires))
            if earlier is not None:
                await _undo(made.undo)
                return _result(idempotency.queued_id(earlier.value or "", key.call, signature.task))
        if outbox:
            await outboxes.add(session, signature.task, task_id, made.message)
            hold(session, outboxes.kick, undo=undo)
        else:
            async with within_limit():
                await _admit(owner, [task_id])
            send = functools.partial(_send_after_commit, made.record, made.message, owner, task_id, signature.task)
            hold(session, send, undo=undo)
    return made.result


@contextlib.asynccontextmanager
async def _undoing(commands: list[Command]) -> AsyncIterator[None]:
    """Undo what was stored for a message that is not sent because of an error in the block."""
    try:
        yield
    except BaseException:
        await _undo(commands)
        raise


async def _undo(commands: list[Command]) -> None:
    if not commands:
        return
    try:
        async with within_limit():
            _raise_first((await execute(Commands(broker=commands))).broker)
    except QueueUnavailable as error:
        # What was stored expires.
        _logger.warning("task_not_forgotten", error=repr(error.__cause__))


async def _enqueue_once(signature: Any, owner: str | None, key: Key, *, limited: bool = True) -> AsyncResult[Any]:
    async with within_limit():
        await check_memory()
        return await _publish_once(signature, owner, key, limited=limited)


async def _publish_once(signature: Any, owner: str | None, key: Key, *, limited: bool = True) -> AsyncResult[Any]:
    earlier = (await execute(Commands(broker=[("GET", key.name)]))).broker
    _raise_first(earlier)
    if earlier[0] is not None:
        return _result(idempotency.queued_id(earlier[0], key.call, signature.task))
    if _is_depth_limited():
        await in_thread(queue_depth.check_first, signature)
    task_ids = [job_limit.new_id(signature)]
    with owners.owned_by(owner):
        made: Collected[AsyncResult[Any]] = await collect(signature.apply_async, task_id=task_ids[0])
    if made.message is None:
        # A unique task that another call queued: the next call with the key gets it too.
        value = f"{key.call} {made.result.id}"
        _raise_first((await execute(Commands(broker=[("SET", key.name, value, "NX", "EX", key.expires)]))).broker)
        return made.result
    _, queue, message = made.message
    async with _undoing(made.undo):
        if limited:
            await _admit(owner, task_ids)
        elif owner:
            _raise_first((await execute(Commands(before=[job_limit.addition(owner, task_ids)]))).before)
    try:
        once = idempotency.Once(queue, key.name, f"{key.call} {task_ids[0]}", message)
        replies = (await execute(Commands(broker=[idempotency.publication([once], key.expires)]))).broker
        _raise_first(replies)
        (outcome,) = replies[0]
        if outcome:
            # Another call was faster.
            await _undo(made.undo)
            await _forget(owner, task_ids)
            return _result(idempotency.queued_id(outcome, key.call, signature.task))
    except Exception as error:
        if isinstance(error, ResponseError):
            # Redis refused it: it is not queued.
            await _undo(made.undo)
        await _forget(owner, task_ids)
        raise
    # Not before: the record of a task that is not queued would be wrong. A worker that is faster has stored a state.
    await _send(made.record, [], owner, task_ids)
    return made.result


def _result(task_id: str) -> AsyncResult[Any]:
    return cast("AsyncResult[Any]", current_app.AsyncResult(task_id))


async def _find_in_outbox(task_id: str) -> TaskStatus | None:
    from app.worker import outbox  # noqa: PLC0415 - see _publish_in_session

    return await outbox.find(task_id)


async def _publish_many(signatures: list[Any], owner: str | None) -> list[AsyncResult[R]]:
    task_ids = [job_limit.new_id(signature) for signature in signatures]
    async with within_limit():
        await _admit(owner, task_ids)
    to_record: list[Command] = []
    to_queue: list[Command] = []
    # Each is in the middle of Celery's `apply_async` until all are sent, so that none is reported as published before.
    publishing: list[asyncio.Task[AsyncResult[R]]] = []
    sent = [asyncio.Event() for _ in range(0, len(signatures), _AT_ONCE)]

    async def publish(number: int) -> AsyncResult[R]:
        async def send(record: list[Command], message: list[Command]) -> None:
            to_record.extend(record)
            to_queue.extend(message)
            await sent[number // _AT_ONCE].wait()

        apply_async = signatures[number].apply_async
        return await on_loop(apply_async, send, only_direct=True, task_id=task_ids[number])

    try:
        with owners.owned_by(owner):
            for number in range(len(signatures)):
                publishing.append(asyncio.create_task(publish(number)))
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in publishing:
            if task.done():
                task.result()
        await _send_many(to_record, _in_one_step(to_queue), owner, task_ids)
        for number, event in enumerate(sent):
            event.set()
            await asyncio.gather(*publishing[number * _AT_ONCE : (number + 1) * _AT_ONCE])
        return [task.result() for task in publishing]
    except Exception:
        await _forget(owner, task_ids)
        raise
    finally:
        for task in publishing:
            task.cancel()
        await asyncio.gather(*publishing, return_exceptions=True)


async def _send_many(to_record: list[Command], to_queue: list[Command], owner: str | None, task_ids: list[str]) -> None:
    async with within_limit():
        for first in range(0, len(to_record), _RECORDS_AT_ONCE):
            part = to_record[first : first + _RECORDS_AT_ONCE]
            await records.check(part, (await execute(Commands(before=part))).before, task_ids)
        await _send([], to_queue, owner, task_ids)


def _in_one_step(messages: list[Command]) -> list[Command]:
    """Return the commands that queue all messages or none."""
    if sum(len(message) for _, _, message in messages) > MAX_MANY_BYTES:
        raise InvalidArguments(
            f"the messages have more than {MAX_MANY_BYTES} bytes; call enqueue_many with fewer tasks."
        )
    by_queue: dict[str, list[str]] = {}
    for _, queue, message in messages:
        by_queue.setdefault(queue, []).append(message)
    return [("MULTI",), *(("LPUSH", queue, *values) for queue, values in by_queue.items()), ("EXEC",)]


async def _admit(owner: str | None, task_ids: list[str]) -> None:
    if owner:
        replies = await execute(Commands(before=[job_limit.admission(owner, task_ids)]))
        _raise_first(replies.before)
        job_limit.check_admitted(replies.before[0])


def _is_depth_limited() -> bool:
    return celery_settings.max_queue_depth > 0 and not is_in_task()


async def _forget(owner: str | None, task_ids: list[str]) -> None:
    if owner:
        await execute(Commands(before=[job_limit.removal(owner, task_ids)]))


async def _send(to_record: list[Command], messages: list[Command], owner: str | None, task_ids: list[str]) -> None:
    """Store the records, queue the messages and count the jobs: in one round trip if it is one server."""
    confirmations = [job_limit.confirmation(owner, task_ids)] if owner else []
    is_limited = _is_depth_limited()
    replies = await execute(
        Commands(to_record, queue_depth.limited(messages) if is_limited else messages, confirmations)
    )
    for error in failures(replies.broker):
        if isinstance(error, ResponseError):
            # Redis refused it: it is not queued.
            await execute(Commands(before=records.forget(task_ids)))
        raise error
    if is_limited:
        queue_depth.check_queued(replies.broker[0])
    await records.check(to_record, replies.before, task_ids)
    for error in failures(replies.after):
        # It is queued: after an error the caller would queue it twice.
        _logger.warning("job_not_counted", task_ids=task_ids[:10], error=repr(error))


async def _send_after_commit(
    to_record: list[Command], message: Command, owner: str | None, task_id: str, task: str
) -> None:
    try:
        async with within_limit():
            await _send(to_record, [message], owner, [task_id])
    except QueueUnavailable as error:
        # The data is committed: after an error the caller would do it twice.
        _logger.error("task_not_queued_after_commit", task=task, task_id=task_id, error=repr(error.__cause__))


def _raise_first(replies: list[Any]) -> None:
    for error in failures(replies):
        raise error


def _publish(signature: Signature[R], owner: str | None) -> AsyncResult[R]:
    if owner is None:
        return _queue(signature, None)
    task_id = job_limit.admit(owner, signature)
    with owners.owned_by(owner):
        try:
            result = _queue(signature, task_id)
        except BaseException:
            if task_id:
                with contextlib.suppress(RedisError):
                    job_limit.remove(owner, task_id)
            raise
    if isinstance(result, Duplicate) and task_id:
        job_limit.remove(owner, task_id)
    elif task_id:
        try:
            job_limit.confirm(owner, task_id)
        except RedisError as error:
            # It is queued: after an error the caller would queue it twice.
            _logger.warning("job_not_counted", task_ids=[task_id], error=repr(error))
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


def _cancel(task_id: str, terminate: bool) -> TaskStatus | None:
    status = _recorded_status(task_id)
    if status is None or status.ready:
        return status
    return _revoke(task_id, terminate)


def _revoke(task_id: str, terminate: bool) -> TaskStatus | None:
    revocation.cancel(task_id, terminate=terminate)
    return _recorded_status(task_id)


def _recorded_status(task_id: str) -> TaskStatus | None:
    status = read_status(task_id)
    # A result expires before the record: that of a task with a long countdown too.
    record = history.read(task_id) if status is None else None
    return TaskStatus(task_id, record.state, error=record.error, owner=record.owner) if record else status
