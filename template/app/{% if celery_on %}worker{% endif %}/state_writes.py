"""Writes of a task's state to a result store that refuses them.

Redis refuses a write by an answer (READONLY during a failover, OOM, NOREPLICAS, MISCONF, NOPERM …) or by a lost connection.
How a task ended is written again until it is stored or `CELERY_RESULT_RETRY` seconds are over; then its message goes back to
its queue, and the task runs again. STARTED and progress are information: where they are refused, the task goes on.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from billiard.einfo import ExceptionInfo
from celery import states
from celery._state import get_current_task
from celery.app.trace import TraceInfo, trace_ok_t
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.worker.request import Request
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.worker.owners import jobs_key, owner_key, owner_of
from app.worker.time_limits import enforceable

REFUSALS = (RedisError, OperationalError, OSError)
"""What a write raises that may succeed later, whatever Redis says."""

_OUTSIDE_TASK = 2.0
"""Seconds for a write of the worker's main process, whose loop waits for it; with a frozen Redis, two timeouts of a socket."""

_LONGEST_PAUSE = 2.0
_QUIET = 5.0
"""Seconds for which no information is written after it was refused: with a frozen Redis each attempt takes a timeout."""

_logger = structlog.get_logger("app.worker")


# A state that says how a task ended never changes. Read and written in one step: two processes may end a task at once.
# "status" is the first key that Celery and app/worker/records.py write.
_STORE = """
local current = redis.call('GET', KEYS[1])
local state = current and string.match(current, '^{"status": ?"(%u+)"')
if state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED' then
    return state
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
-- The record of a task that waited for long has expired, and its owner with it: the message knows.
local owner = ARGV[3] ~= '' and ARGV[3] or redis.call('GET', KEYS[2])
if owner then
    redis.call('SET', KEYS[2], owner, 'EX', ARGV[2])
    if ARGV[5] ~= '' then
        redis.call('ZREM', ARGV[4] .. owner, ARGV[5])
    end
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return false
"""


class RetriedWrites:
    """Mixed into Celery's Redis backend."""

    _information_refused = float("-inf")

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        backend: Any = self
        meta = backend._get_result_meta(result=result, state=state, traceback=traceback, request=request)  # noqa: SLF001
        value = backend.encode({**meta, "task_id": task_id})
        expires = backend.failure_expires if state == states.FAILURE else backend.expires
        owner, ended = owner_of(request) or "", task_id if state in states.READY_STATES else ""
        keys = [backend.get_key_for_task(task_id), owner_key(task_id)]
        backend.client.register_script(_STORE)(keys=keys, args=[value, expires, owner, jobs_key(""), ended])
        return result

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store a state as Celery does.

        Raises:
            celery.exceptions.Reject: the state says how a task ended, and was refused for as long as it is tried.
        """
        backend: Any = self
        encoded = backend.encode_result(result, state)

        def write() -> None:
            backend._store_result(task_id, encoded, state, *args, **kwargs)  # noqa: SLF001

        if state in states.READY_STATES or state == states.RETRY:
            until_stored(write, task_id, state)
        else:
            self._inform(write, task_id, state)
        return encoded

    def mark_as_done(self, task_id: str, *args: Any, **kwargs: Any) -> None:
        """Store SUCCESS and the part of a chord; see `store_result`."""
        backend: Any = super()
        until_stored(lambda: backend.mark_as_done(task_id, *args, **kwargs), task_id, states.SUCCESS)

    def mark_as_failure(self, task_id: str, *args: Any, **kwargs: Any) -> None:
        """Store FAILURE, also of what can no longer run; see `store_result`."""
        backend: Any = super()
        until_stored(lambda: backend.mark_as_failure(task_id, *args, **kwargs), task_id, states.FAILURE)

    def mark_as_revoked(self, task_id: str, *args: Any, **kwargs: Any) -> None:
        """Store REVOKED and the part of a chord; see `store_result`."""
        backend: Any = super()
        until_stored(lambda: backend.mark_as_revoked(task_id, *args, **kwargs), task_id, states.REVOKED)

    def _inform(self, write: Callable[[], None], task_id: str, state: str) -> None:
        if time.monotonic() - self._information_refused < _QUIET:
            return
        try:
            write()
        except REFUSALS as error:
            self._information_refused = time.monotonic()
            _logger.warning("state_not_stored", task_id=task_id, state=state, error=repr(error))


def until_stored(write: Callable[[], None], task_id: str, state: str) -> None:
    """Call `write` until nothing refuses it.

    Raises:
        celery.exceptions.Reject: it was refused for `CELERY_RESULT_RETRY` seconds, or 2 outside of a task.
    """
    limit = celery_settings.result_retry if get_current_task() else _OUTSIDE_TASK
    deadline = time.monotonic() + limit
    pause = 0.05
    told = False
    while True:
        try:
            try:
                write()
            except REFUSALS as error:
                refusal = error
            else:
                return
            if time.monotonic() + pause > deadline:
                break
            if not told:
                told = True
                _logger.warning("result_store_refuses", task_id=task_id, state=state, error=repr(refusal))
            threading.Event().wait(pause)
        except SoftTimeLimitExceeded as error:
            # The work is done: the hard limit would report it as failed.
            refusal = error
            break
        pause = min(2 * pause, _LONGEST_PAUSE)
    _logger.error("result_not_stored", task_id=task_id, state=state, error=repr(refusal), action="requeued")
    raise Reject(f"{state} could not be stored: {refusal!r}", requeue=True) from refusal


class RequeuedRequest(Request):
    """A request whose message goes back to its queue where the main process cannot store how it ended."""

    _storing = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        request: Any = self
        hard, soft = request.time_limits
        request.time_limits = enforceable(hard or self.task.time_limit, soft or self.task.soft_time_limit)

    def on_failure(self, *args: Any, **kwargs: Any) -> None:
        """Celery acknowledges a failed task before it stores the failure: here the acknowledgement waits."""
        self._or_requeue(super().on_failure, *args, **kwargs)

    def on_timeout(self, *args: Any, **kwargs: Any) -> None:
        """Store that the time is over; see the class."""
        self._or_requeue(super().on_timeout, *args, **kwargs)

    def _announce_revoked(self, *args: Any, **kwargs: Any) -> None:
        self._or_requeue(super()._announce_revoked, *args, **kwargs)

    def acknowledge(self) -> None:
        """Acknowledge the message, or leave that to `_or_requeue`."""
        if self._storing:
            self._acknowledge_later = True
        else:
            super().acknowledge()

    def _or_requeue(self, handle: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if self._storing:
            handle(*args, **kwargs)
            return
        self._storing, self._acknowledge_later = True, False
        try:
            handle(*args, **kwargs)
        except Reject as error:
            self._storing = False
            self.reject(requeue=error.requeue)
        finally:
            self._storing = False
        if self._acknowledge_later:
            self.acknowledge()


def requeuing(tracer: Callable[..., Any]) -> Callable[..., Any]:
    """Return Celery's tracer of a task with a rejection as its outcome: pools other than prefork do not pass on what it raises."""

    def trace(*args: Any, **kwargs: Any) -> Any:
        try:
            return tracer(*args, **kwargs)
        except Reject as error:
            return trace_ok_t(ExceptionInfo(internal=True), TraceInfo("REJECTED", error), None, None)

    return trace
