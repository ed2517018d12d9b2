"""The limit on an owner's unfinished jobs. A job is what one call of `enqueue` queues, whatever that queues later."""

from typing import Any
from uuid import uuid4

from celery.canvas import group

from app.core.config.celery import celery_settings
from app.worker.broker import result_key, results_client
from app.worker.typing import Signature

COUNTED_FOR = 86400
"""Seconds after which a job without news is not counted any more: its message may be lost."""

_PUBLISHED_WITHIN = 60

# Counted from the stored states, so that nothing leaks: a job that has ended is not counted, whoever stored its end, and each
# entry expires. In one step: of two simultaneous requests the second sees the first.
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

# XX: not if it has ended since.
_CONFIRM = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[2]), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""


class TooManyJobs(Exception):
    """The owner has as many unfinished jobs as `CELERY_MAX_JOBS_PER_OWNER` allows."""


def admit(owner: str, signature: Signature[Any]) -> str | None:
    """Count a job that is about to be queued, and return the id that it must get; None for a group, whose end is not known.

    Raises:
        TooManyJobs: the limit is reached.
        redis.exceptions.RedisError: Redis does not answer.
    """
    if isinstance(signature, group):
        return None
    limit = celery_settings.max_jobs_per_owner
    task_id = str(signature.options.get("task_id") or uuid4())
    # It may never be published: a process that dies before leaves it counted for a minute only.
    states = result_key("/")[:-1]
    script = results_client().register_script(_ADMIT)
    if not script(keys=[jobs_key(owner)], args=[task_id, limit, _PUBLISHED_WITHIN, states, COUNTED_FOR]):
        raise TooManyJobs(f"You have {limit} jobs that have not ended: wait until one has.")
    return task_id


def confirm(owner: str, task_id: str) -> None:
    """Count a job that was queued until it ends.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    results_client().register_script(_CONFIRM)(keys=[jobs_key(owner)], args=[task_id, COUNTED_FOR])


def remove(owner: str, task_id: str) -> None:
    """Do not count a job that could not be queued.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    results_client().zrem(jobs_key(owner), task_id)


def jobs_key(owner: str) -> bytes:
    """Return the key of an owner's jobs."""
    return result_key(f"/jobs/{owner}")
