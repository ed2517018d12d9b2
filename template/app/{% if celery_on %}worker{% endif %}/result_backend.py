"""How a task's state is written to the result store, also while that refuses writes.

Redis refuses a write by an answer (READONLY during a failover, OOM, NOREPLICAS, MISCONF, NOPERM …) or by a lost connection.
A final state is written again until it is stored or `CELERY_RESULT_RETRY` seconds are over; then the message is requeued, and
the task runs again. STARTED and progress are only information: if they are refused, the task continues.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from celery import states
from celery._state import get_current_task
from celery.backends.redis import RedisBackend
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.result import ResultSet
from redis.exceptions import NoPermissionError

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker import owners, records, redelivery, rerun, revocation, start, task_progress
from app.worker.broker import OUTAGES, kept_lua_script, lua_script
from app.worker.job_limit import jobs_key
from app.worker.record_scripts import RECORD, SUFFIX
from app.worker.workflow_failures import WorkflowFailures

_RETRY_OUTSIDE_TASK = 2.0
"""Seconds for a write of the worker's main process, whose event loop waits for it; with a frozen Redis, two socket timeouts."""

_MAX_PAUSE = 2.0
_PAUSE_AFTER_REFUSAL = 5.0
"""Seconds without another attempt to write information: with a frozen Redis each attempt takes a timeout."""

_logger = structlog.get_logger("app.worker")


# A final state never changes. Read and written in one step: two processes may end a task at once.
# "status" is the first key that Celery and app/worker/records.py write.
# Published to nobody in most cases, which costs Redis 0.2 µs: it alone knows whether somebody has subscribed by now.
_WRITE = """
local function write(current, stored_owner)
    local state = current and string.match(current, '^{"status": ?"(%u+)"')
    if state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED' then
        return state
    end
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
    -- The record of a task that waited for long has expired with its owner, but the message has it.
    local owner = ARGV[3] ~= '' and ARGV[3] or stored_owner
    if owner then
        redis.call('SET', KEYS[2], owner, 'EX', ARGV[2])
        if ARGV[5] ~= '' then
            redis.call('ZREM', ARGV[4] .. owner, ARGV[5])
        end
    end
    redis.call('PUBLISH', KEYS[1], ARGV[1])
    return false
end
"""
# The record has the state that the result has, whichever of two processes wrote that.
_WRITE = (
    RECORD
    + _WRITE
    + """
local function write_both(redeliveries)
    local stored = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
    local final = write(stored[1], stored[2])
    if final and final ~= ARGV[10] then
        ARGV[14] = ''
    end
    write_record(stored[3], final or ARGV[10], redeliveries)
    return final
end
"""
)
_STORE = kept_lua_script(f"#!lua\n{_WRITE}write_both(0)\n")
# Also in a full Redis: a message is removed when its task has ended.
_END = kept_lua_script(
    "#!lua flags=allow-oom\n"
    + _WRITE
    + """
-- KEYS: 4 the message  ARGV: 16 the message of a task that failed or was revoked, or ''; neither for one that succeeded
local final = write_both(0) or ARGV[10]
-- A task that was cancelled while it waited is revoked already when a worker has its message.
if ARGV[16] and ARGV[16] ~= '' and final ~= 'SUCCESS' then
    local left = redis.call('TTL', KEYS[3])
    if left > 0 then
        redis.call('SET', KEYS[4], ARGV[16], 'EX', left, 'NX')
    end
end
"""
)
_START_TEXT = (
    "#!lua flags=allow-oom\n"
    + _WRITE
    + """
if redis.call('EXISTS', KEYS[4]) == 1 then
    return {1, 0, ''}
end
local count = 0
if ARGV[16] == '1' then
    count = redis.call('INCR', KEYS[5])
    redis.call('EXPIRE', KEYS[5], ARGV[17])
end
return {0, count, write_both(count) or ''}
"""
)
_START = kept_lua_script(_START_TEXT)
# Not twice, as it counts.
_START_REDELIVERED = lua_script(_START_TEXT)


class RetriedWrites:
    """Mixed into Celery's Redis backend: writes final states again until they are stored."""

    _information_refused_at = float("-inf")

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        *,
        error: BaseException | None = None,
        next_retry: float = 0,
        **_: Any,
    ) -> Any:
        if state in states.READY_STATES or state == states.RETRY:
            task_progress.end(request)
        backend: Any = self
        meta = backend._get_result_meta(result=result, state=state, traceback=traceback, request=request)  # noqa: SLF001
        value = backend.encode({**meta, "task_id": task_id})
        expires = backend.failure_expires if state == states.FAILURE else backend.expires
        ends = state in states.READY_STATES
        key = backend.get_key_for_task(task_id)
        keys = [key, key + owners.SUFFIX, key + SUFFIX]
        progress = None if state in states.ALL_STATES else result
        args = [value, expires, owners.owner_of(request) or "", _jobs_prefix(), task_id if ends else ""]
        # The record has the rest since the task started, and most tasks succeed.
        is_recorded = state == states.SUCCESS and start.has_started(request)
        described = None if is_recorded else request
        args += records.state_arguments(task_id, state, described, error, progress, next_retry)
        if state == states.STARTED and request is not None:
            more_keys = [revocation.key(task_id), redelivery.key(task_id)]
            is_redelivered = start.is_redelivered(request)
            more = [int(is_redelivered), redelivery.COUNTED_FOR]
            store_started = _START_REDELIVERED if is_redelivered else _START
            try:
                is_revoked, redeliveries, ended = store_started(backend.client, keys + more_keys, args + more)
            except NoPermissionError:
                # A user that is restricted to the keys of results.
                _STORE(backend.client, keys, args)
            else:
                request.start = start.Start(bool(is_revoked), redeliveries, ended.decode() == states.SUCCESS)
        else:
            if state in states.PROPAGATE_STATES:
                keys.append(rerun.message_key(task_id))
                args.append(rerun.message(request))
            (_END if ends else _STORE)(backend.client, keys, args)
        return result

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store a state as Celery does.

        Raises:
            celery.exceptions.Reject: the state is final or RETRY, and was refused for as long as it is retried.
        """
        backend: Any = self
        encoded = backend.encode_result(result, state)

        error = result if isinstance(result, BaseException) else None

        def write() -> None:
            backend._store_result(task_id, encoded, state, *args, error=error, **kwargs)  # noqa: SLF001

        if state in states.READY_STATES or state == states.RETRY:
            retry_until_stored(write, task_id, state)
        else:
            self._write_information(write, task_id, state)
        return encoded

    def mark_as_done(self, task_id: str, *args: Any, **kwargs: Any) -> None:
        """Store SUCCESS and the part of a chord; see `store_result`."""
        backend: Any = super()
        retry_until_stored(lambda: backend.mark_as_done(task_id, *args, **kwargs), task_id, states.SUCCESS)

    def mark_as_failure(self, task_id: str, *args: Any, **kwargs: Any) -> None:
        """Store FAILURE, also of what can no longer run; see `store_result`."""
        backend: Any = super()
        retry_until_stored(lambda: backend.mark_as_failure(task_id, *args, **kwargs), task_id, states.FAILURE)

    def mark_as_revoked(self, task_id: str, *args: Any, **kwargs: Any) -> None:
        """Store REVOKED and the part of a chord; see `store_result`."""
        backend: Any = super()
        retry_until_stored(lambda: backend.mark_as_revoked(task_id, *args, **kwargs), task_id, states.REVOKED)

    def _write_information(self, write: Callable[[], None], task_id: str, state: str) -> None:
        if time.monotonic() - self._information_refused_at < _PAUSE_AFTER_REFUSAL:
            return
        try:
            write()
        except OUTAGES as error:
            self._information_refused_at = time.monotonic()
            _logger.warning("state_not_stored", task_id=task_id, state=state, error=error_repr(error))


class ResultBackend(RetriedWrites, WorkflowFailures, RedisBackend):
    """Celery's Redis backend, which subscribes to a result only when somebody waits for it, and gets RETRY from the task.

    Celery subscribes at every `.delay()`; a process that only publishes never reads those messages, and with a frozen
    Redis the subscription blocks far longer than the publishing (https://github.com/celery/celery/issues/6963).

    Celery stores RETRY when the next attempt is already queued: if that one ends first, RETRY would be the final state.
    `AppTask.retry` stores it before.
    """

    result_consumer: Any

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: see the class."""

    def add_pending_result(self, result: Any, weak: bool | None = None, start_drainer: bool = True) -> Any:
        """Subscribe to a result that is waited for; not for a callback, by which a group follows its members."""
        if weak is not None and start_drainer:
            return result
        return super().add_pending_result(result, weak=bool(weak), start_drainer=start_drainer)

    def iter_native(self, result: Any, **kwargs: Any) -> Any:
        """Subscribe to the members of a group that is waited for."""
        self.add_pending_results(list(_members(result)))
        return super().iter_native(result, **kwargs)

    def mark_as_retry(self, task_id: str, exc: Any, *args: Any, **kwargs: Any) -> Any:
        """Do nothing: see the class."""
        return exc


def retry_until_stored(write: Callable[[], None], task_id: str, state: str) -> None:
    """Call `write` until it is not refused.

    Raises:
        celery.exceptions.Reject: it was refused for `CELERY_RESULT_RETRY` seconds, or 2 outside of a task.
    """
    limit = celery_settings.result_retry if get_current_task() else _RETRY_OUTSIDE_TASK
    deadline = time.monotonic() + limit
    pause = 0.05
    is_logged = False
    while True:
        try:
            try:
                write()
            except OUTAGES as error:
                refusal = error
            else:
                return
            if time.monotonic() + pause > deadline:
                break
            if not is_logged:
                is_logged = True
                _logger.warning("result_store_refuses", task_id=task_id, state=state, error=error_repr(refusal))
            threading.Event().wait(pause)
        except SoftTimeLimitExceeded as error:
            # The work is done: the hard limit would report it as failed.
            refusal = error
            break
        pause = min(2 * pause, _MAX_PAUSE)
    _logger.error("result_not_stored", task_id=task_id, state=state, error=error_repr(refusal), action="requeued")
    raise Reject(f"{state} could not be stored: {refusal!r}", requeue=True) from refusal


@functools.cache
def _jobs_prefix() -> bytes:
    return jobs_key("")


def _members(result: Any) -> Iterator[Any]:
    if isinstance(result, ResultSet):
        for member in result.results:
            yield from _members(member)
    else:
        yield result
