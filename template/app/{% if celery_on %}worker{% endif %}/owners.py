"""Whose task it is. What the API queues for a user carries the user as its owner, and so does all that such a task queues.

The owner travels in the message's header `owner` and stands beside the task's record, as long as that is kept. Each owner has a
bounded number of jobs that have not ended; a job is what one call of `enqueue` queues.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

from celery import current_app
from celery.canvas import Signature, group

from app.core.config.celery import celery_settings

HEADER = "owner"

PRIORITY = 3
"""Priority of tasks that have an owner. Scheduled tasks have 0 and overtake them in every queue: Redis delivers 0 first."""

COUNTED = 86400
"""Seconds after which a job that nothing was heard of is not counted any more: its message may be lost."""

_PUBLISHED_WITHIN = 60

# Counted from what is stored, so that nothing leaks: a job that has ended is not counted, whoever stored its end, and each
# entry expires. In one step: of two requests at the same time the second sees the first.
_ADMIT = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local state = string.match(redis.call('GETRANGE', ARGV[4] .. id, 0, 63), '^{"status": ?"(%u+)"')
    if state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED' then
        redis.call('ZREM', KEYS[1], id)
    end
end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
    return 0
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""

# Not where it has ended since.
_KEEP = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[2]), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""

_owner: ContextVar[str | None] = ContextVar("task_owner", default=None)


class TooManyJobs(Exception):
    """The owner has as many jobs that have not ended as `CELERY_MAX_JOBS_PER_OWNER` allows."""


@contextmanager
def owned_by(owner: str | None) -> Iterator[None]:
    """Give what the block queues an owner; None leaves that to the task that runs."""
    token = _owner.set(owner or _owner.get())
    try:
        yield
    finally:
        _owner.reset(token)


def owner_of(request: Any) -> str | None:
    """Return the owner that a task's request carries."""
    found = (request or {}).get(HEADER)
    return found if isinstance(found, str) and found else None


def current_owner(request: Any) -> str | None:
    """Return whose is what is queued here, in the task of that request or outside of any."""
    return _owner.get() or owner_of(request)


def admit(owner: str, signature: Signature[Any]) -> str | None:
    """Count a job that is about to be queued and return the id that it must get; None is a group, which has no end to count to.

    Raises:
        TooManyJobs: see there.
        redis.exceptions.RedisError: Redis does not answer.
    """
    if isinstance(signature, group):
        return None
    limit = celery_settings.max_jobs_per_owner
    task_id = str(signature.options.get("task_id") or uuid4())
    backend: Any = current_app.backend
    script = backend.client.register_script(_ADMIT)
    # Until it is published it may never be: a process that dies in between leaves it for a minute.
    records = bytes(backend.get_key_for_task("/"))[:-1]
    if not script(keys=[jobs_key(owner)], args=[task_id, limit, _PUBLISHED_WITHIN, records, COUNTED]):
        raise TooManyJobs(f"You have {limit} jobs that have not ended: wait until one has.")
    return task_id


def keep(owner: str, task_id: str) -> None:
    """Count a job that is queued until it ends.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    backend: Any = current_app.backend
    backend.client.register_script(_KEEP)(keys=[jobs_key(owner)], args=[task_id, COUNTED])


def forget(owner: str, task_id: str) -> None:
    """Do not count a job that could not be queued.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    backend: Any = current_app.backend
    backend.client.zrem(jobs_key(owner), task_id)


def owner_key(task_id: str) -> bytes:
    """Return the key of a task's owner: among those of results, which every user of the results' Redis may use."""
    backend: Any = current_app.backend
    # With a character that the id of no task has in GET /task.
    return bytes(backend.get_key_for_task(f"{task_id}/owner"))


def jobs_key(owner: str) -> bytes:
    """Return the key of an owner's jobs."""
    backend: Any = current_app.backend
    return bytes(backend.get_key_for_task(f"/jobs/{owner}"))
