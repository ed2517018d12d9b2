"""Revocations that survive workers: Celery's workers keep them in memory only, and forget them when they restart.

Each revoked id is stored in the result store's database, whoever revoked it: `cancel`, `AsyncResult.revoke`,
`celery control revoke`, Flower. A worker checks the id before it runs a task: in the call that stores STARTED, or, for a task
without a result, in a list that each process reads again after `REFRESH_AFTER` seconds. Celery's broadcast covers that time.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn
from uuid import uuid4

import structlog
from celery import current_app, signals, states
from celery.app.control import Control
from celery.exceptions import Ignore
from celery.utils.functional import maybe_list
from celery.worker.control import control_command
from celery.worker.control import revoke as _revoke_in_worker
from redis.exceptions import RedisError

from app.core.logging import error_repr
from app.worker import history
from app.worker.broker import lua_script, results_client
from app.worker.status import read_status

EXPIRES = 30 * 86400
"""Seconds for which a revocation is stored; a longer countdown runs afterwards."""

REFRESH_AFTER = 1.0
"""Seconds after which a process reads the list of revocations again."""

MAX_LISTED = 2000
"""If more tasks are revoked, a process looks up each task instead: every process reads the whole list after a change."""

_PREFIX = "revoked:"
_INDEX = "revocations"
_VERSION = "revocations/version"
_IMPORTING = "revocations/importing"
_IMPORT_TAKES = 60
_IMPORT_EVERY = 86400
"""Seconds after which revocations that are not in the list, as releases before 0.6.0 store them, are added to it."""

_BATCH = 1000
_logger = structlog.get_logger("app.worker")

# The version last: whoever reads the list before it changes reads it again.
_STORE = lua_script(
    """#!lua flags=allow-oom
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 3, #KEYS do
    redis.call('SET', KEYS[i], 1, 'EX', ARGV[1])
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'XX', 'KEEPTTL')
"""
)

_READ = lua_script(
    """#!lua flags=no-writes
local version = redis.call('GET', KEYS[2])
if not version or version == ARGV[1] then
    return {version}
end
if redis.call('ZCARD', KEYS[1]) > tonumber(ARGV[2]) then
    return {version, false}
end
return {version, redis.call('ZRANGE', KEYS[1], 0, -1)}
"""
)

_IMPORT = lua_script(
    """#!lua flags=allow-oom
local now = tonumber(redis.call('TIME')[1])
for i = 2, #KEYS do
    local left = redis.call('TTL', KEYS[i])
    if left > 0 then
        redis.call('ZADD', KEYS[1], 'NX', now + left, ARGV[i - 1])
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[#ARGV])
"""
)


class RevocationControl(Control):
    """Celery's remote control, which stores what it revokes, also while no worker is running."""

    def broadcast(self, command: str, arguments: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Send a command to workers, after storing what it revokes.

        Raises:
            redis.exceptions.RedisError: the revocation could not be stored; it was not sent.
        """
        if command == "revoke":
            store(maybe_list((arguments or {}).get("task_id")) or [])
        return super().broadcast(command, arguments, *args, **kwargs)


@control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def _revoke(state: Any, task_id: Any, *args: Any, **kwargs: Any) -> Any:
    """Store what another program than this application revokes in a worker, then revoke it."""
    try:
        store(maybe_list(task_id) or [])
    except RedisError as error:
        _logger.warning("revocation_not_stored", task_ids=task_id, error=error_repr(error))
    return _revoke_in_worker(state, task_id, *args, **kwargs)


def store(task_ids: Iterable[str]) -> None:
    """Make every worker revoke each of these tasks from now on.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    for batch in _batches(list(task_ids)):
        _STORE(results_client(), [_INDEX, _VERSION, *map(key, batch)], [EXPIRES, uuid4().hex, *batch])


class _Revoked:
    """The ids of all revoked tasks, as this process last read them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: frozenset[str] | None = frozenset()
        self._version = b""
        self._read_at = float("-inf")

    def contains(self, task_id: str) -> bool:
        """Return whether the task was revoked.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        if time.monotonic() - self._read_at > REFRESH_AFTER:
            # In the threads pool, others wait for the answer.
            with self._lock:
                if time.monotonic() - self._read_at > REFRESH_AFTER:
                    try:
                        self._refresh()
                    finally:
                        # Also if it fails: with a frozen Redis each attempt takes a timeout.
                        self._read_at = time.monotonic()
        return is_stored(task_id) if self._ids is None else task_id in self._ids

    def _refresh(self) -> None:
        client = results_client()
        version, *ids = self._read(client)
        if version is None:
            if not client.set(_IMPORTING, 1, nx=True, ex=_IMPORT_TAKES):
                # Another process does it; until then, each task is looked up.
                self._ids = None
                return
            _import_unlisted(client)
            version, *ids = self._read(client)
        if ids:
            self._ids = None if ids[0] is None else frozenset(task_id.decode() for task_id in ids[0])
            self._version = version

    def _read(self, client: Any) -> Any:
        return _READ(client, [_INDEX, _VERSION], [self._version, MAX_LISTED])


_revoked = _Revoked()


def _import_unlisted(client: Any) -> None:
    """Add to the list what releases before 0.6.0 store, of which some processes may still run."""
    found = [name.decode().removeprefix(_PREFIX) for name in client.scan_iter(f"{_PREFIX}*", count=_BATCH)]
    for batch in _batches(found):
        _IMPORT(client, [_INDEX, *map(key, batch)], [*batch, EXPIRES])
    client.set(_VERSION, uuid4().hex, nx=True, ex=_IMPORT_EVERY)


def is_stored(task_id: str) -> bool:
    """Return whether the task was revoked.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return bool(results_client().exists(key(task_id)))


def is_listed(task_id: str) -> bool:
    """Return whether the task was revoked, at least `REFRESH_AFTER` seconds ago; in most calls without a round trip.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return _revoked.contains(task_id)


def stop(task: Any, reason: str = "revoked") -> NoReturn:
    """Update the state and the chord of a revoked task that would run now.

    Raises:
        celery.exceptions.Ignore: it does not run.
    """
    request = task.request
    is_stored = not request.ignore_result or task.store_errors_even_if_ignored
    task.backend.mark_as_revoked(request.id, reason, request=request, store_result=is_stored)
    expired = reason == "expired"
    signals.task_revoked.send(sender=task, request=request, terminated=False, signum=None, expired=expired)
    raise Ignore(f"{task.name}[{request.id}] was {reason}")


def cancel(task_id: str, *, terminate: bool) -> None:
    """Revoke a task that has not ended.

    Raises:
        redis.exceptions.RedisError, kombu.exceptions.OperationalError: Redis does not answer.
    """
    cancel_many([task_id], terminate=terminate)


def cancel_many(task_ids: Sequence[str], *, terminate: bool) -> None:
    """Revoke tasks, of which those that have ended do not change.

    Raises:
        redis.exceptions.RedisError, kombu.exceptions.OperationalError: Redis does not answer.
    """
    if not task_ids:
        return
    backend: Any = current_app.backend
    # First: a task that starts after this line is stopped, so that one that has not started yet does not run.
    store(task_ids)
    for task_id in task_ids:
        if _state(task_id) in {states.PENDING, states.RETRY}:
            backend.mark_as_revoked(task_id, "cancelled")
    current_app.control.revoke(list(task_ids), terminate=terminate)


def _state(task_id: str) -> str:
    """Return the state of a task, also of one whose result has expired and whose record has not."""
    status = read_status(task_id)
    if status is not None:
        return status.status
    record = history.read(task_id)
    return record.state if record else states.PENDING


def _batches(task_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(task_ids), _BATCH):
        yield task_ids[start : start + _BATCH]


def key(task_id: str) -> str:
    """Return the key under which a revocation is stored."""
    return f"{_PREFIX}{task_id}"
