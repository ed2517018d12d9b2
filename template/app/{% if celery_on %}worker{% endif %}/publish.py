"""Queue, read, wait for, cancel and retry tasks from `async def` code, without blocking the event loop."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from celery import current_app
from celery.canvas import Signature as TaskSignature
from celery.canvas import _chain, chord, group
from celery.exceptions import QueueNotFound

from app.worker import idempotency, queue_depth, rerun
from app.worker.broker import QueueUnavailable, check_queue, in_thread, within_limit
from app.worker.bulk import MAX_MANY, MAX_MANY_BYTES, publish_many
from app.worker.cancellation import cancel, cancel_many, status_of, wait_for
from app.worker.flow_control import Duplicate, NotQueued, RateLimited, is_judged_when_queued
from app.worker.idempotency import Key
from app.worker.memory_limit import QueueFull, check_memory
from app.worker.messages import one_of_many
from app.worker.queue_depth import QueueTooLong
from app.worker.rerun import RetryRefused
from app.worker.sending import is_depth_limited, publish_in_thread, publish_on_loop, publish_once
from app.worker.serializer import InvalidArguments
from app.worker.typing import AsyncResult, Signature

__all__ = [
    "MAX_MANY",
    "MAX_MANY_BYTES",
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
    "retry_ended",
    "status_of",
    "wait_for",
]

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

R = TypeVar("R")

_OWN_CONNECTION = {"connection", "producer", "publisher"}
"""Options with which a call of a task has a connection of its own."""

_SMALL_VALUES, _SMALL_LENGTH = 1000, 50_000
"""How much is made into JSON on the event loop: about a millisecond."""


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
        NotQueued: a rule of the task refuses the call, or `CELERY_MAX_QUEUE_DEPTH` messages wait in its queue.
        QueueFull: Redis uses more than `CELERY_PUBLISH_MEMORY_LIMIT` of its memory limit; never raised in a task.
        QueueUnavailable: Redis refused or did not answer in `CELERY_PUBLISH_TIMEOUT` seconds; the task may still run.
    """
    if after_commit is not None or outbox or idempotency_key is not None:
        _check_single(signature)
        if after_commit is not None:
            # SQLAlchemy: a worker imports it only for tasks that use a database.
            from app.worker.in_session import publish_in_session  # noqa: PLC0415

            return await publish_in_session(signature, owner, after_commit, outbox, idempotency_key)
        if outbox:
            raise ValueError("outbox needs the session in whose transaction the task is stored: after_commit=session.")
    async with within_limit():
        await check_memory()
        if idempotency_key is not None:
            return await publish_once(signature, owner, idempotency.key_of_call(owner, idempotency_key, signature))
        if _is_task(signature) and _is_small(signature):
            return await publish_on_loop(signature, owner)
    if is_depth_limited():
        await in_thread(queue_depth.check_first, signature)
    return await in_thread(publish_in_thread, signature, owner)


async def enqueue_once(signature: Signature[Any], owner: str | None, key: Key) -> AsyncResult[Any]:
    """Queue a single task, or return the one that was queued with this key before.

    For a key that is not made of the call's arguments; `enqueue` has one that is.

    Raises:
        ValueError: it is a chain, group or chord, or has the option `connection`, `producer` or `publisher`.
        app.worker.idempotency.IdempotencyKeyReused: the key was used with another `call`.
        app.worker.serializer.InvalidArguments, app.worker.job_limit.TooManyJobs, NotQueued, QueueFull, QueueUnavailable:
            see `enqueue`.
    """
    _check_single(signature)
    return await _enqueue_once(signature, owner, key)


async def enqueue_many(
    signatures: Iterable[Signature[R]], owner: str | None = None, *, after_commit: "AsyncSession | None" = None
) -> list[AsyncResult[R]]:
    """Queue up to `MAX_MANY` tasks in one step, and return their results in the same order.

    All of them are queued or none; with Celery's `task_send_sent_event`, options such as `connection`, or a task with `unique`, `rate`
    or `debounce`, one after the other. After `QueueUnavailable` it may still be all: give the tasks a `task_id` if they are to be
    queued again under the same ids. Each task is a job of the owner: the limit admits all or none.

    With `after_commit`, a database session, they are queued when its transaction is committed, never if that is rolled back; none may
    have the option `connection`, `producer` or `publisher`.

    Raises:
        ValueError: there are more than `MAX_MANY` signatures, one is a chain, group or chord, or has an option that cannot be used
            with `after_commit`.
        app.worker.serializer.InvalidArguments: a message cannot contain the arguments of one, they are too large for this
            function, or all of them are.
        app.worker.job_limit.TooManyJobs, NotQueued, QueueFull, QueueUnavailable: see `enqueue`.
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
    if after_commit is not None:
        for signature in given:
            _check_connection(signature)
    token = one_of_many.set(True)
    try:
        return await _enqueue_many(given, owner, after_commit)
    finally:
        one_of_many.reset(token)


async def _enqueue_many(
    given: list[Any], owner: str | None, after_commit: "AsyncSession | None"
) -> list[AsyncResult[Any]]:
    if not all(map(_is_task, given)) or any(is_judged_when_queued(one.task) for one in given):
        return [await enqueue(signature, owner, after_commit=after_commit) for signature in given]
    if not given:
        return []
    if after_commit is not None:
        from app.worker.in_session import publish_many_in_session  # noqa: PLC0415 - see `enqueue`

        return await publish_many_in_session(given, owner, after_commit)
    async with within_limit():
        await check_memory()
    return await publish_many(given, owner)


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
        and not signature.options.keys() & _OWN_CONNECTION
    )


def _is_task(signature: Any) -> bool:
    """Return whether one message is all that Celery sends for it, and sends itself."""
    return _is_single(signature) and not current_app.conf.task_send_sent_event


def _check_single(signature: Any) -> None:
    if not isinstance(signature, TaskSignature) or _is_workflow(signature):
        raise ValueError(
            "after_commit, outbox and idempotency_key are for a single task; queue one that queues the chain, group or chord."
        )
    _check_connection(signature)
    if not _is_small(signature):
        raise InvalidArguments("arguments are too large for this option; store them and queue their name.")


def _check_connection(signature: Any) -> None:
    if signature.options.keys() & _OWN_CONNECTION:
        raise ValueError(
            "after_commit, outbox and idempotency_key are not for a task with the option connection, producer or publisher."
        )


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


async def _enqueue_once(signature: Any, owner: str | None, key: Key, *, limited: bool = True) -> AsyncResult[Any]:
    async with within_limit():
        await check_memory()
        return await publish_once(signature, owner, key, limited=limited)
