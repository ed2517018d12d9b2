"""The limit on an owner's unfinished jobs. A job is what one call of `enqueue` queues, whatever that queues later."""

from typing import Any
from uuid import uuid4

from celery.canvas import group

from app.core.config.celery import celery_settings
from app.worker.broker import result_key, results_client
from app.worker.pipeline import Command
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
    local state = string.match(redis.call('GETRANGE', ARGV[3] .. id, 0, 63), '^{"status": ?"(%u+)"')
    if state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED' then
        redis.call('ZREM', KEYS[1], id)
    end
end
if redis.call('ZCARD', KEYS[1]) + #ARGV - 4 > tonumber(ARGV[1]) then
    return 0
end
for number = 5, #ARGV do
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[number])
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""

# XX: not if it has ended since.
_CONFIRM = """
local now = tonumber(redis.call('TIME')[1])
for number = 2, #ARGV do
    redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[1]), ARGV[number])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
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
    task_id = new_id(signature)
    check_admitted(results_client().execute_command(*admission(owner, [task_id])))
    return task_id


def confirm(owner: str, task_id: str) -> None:
    """Count a job that was queued until it ends.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    results_client().execute_command(*confirmation(owner, [task_id]))


def remove(owner: str, task_id: str) -> None:
    """Do not count a job that could not be queued.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    results_client().execute_command(*removal(owner, [task_id]))


def new_id(signature: Signature[Any]) -> str:
    """Return the id that a signature has or gets."""
    return str(signature.options.get("task_id") or uuid4())


def admission(owner: str, task_ids: list[str]) -> Command:
    """Return the command that counts jobs that are about to be queued: all or none of them; see `check_admitted`."""
    # They may never be published: a process that dies before leaves them counted for a minute only.
    states = result_key("/")[:-1]
    limit = celery_settings.max_jobs_per_owner
    return "EVAL", _ADMIT, 1, jobs_key(owner), limit, _PUBLISHED_WITHIN, states, COUNTED_FOR, *task_ids


def check_admitted(reply: Any) -> None:
    """Return if the reply to `admission` admits the jobs.

    Raises:
        TooManyJobs: the limit is reached.
    """
    if not reply:
        limit = celery_settings.max_jobs_per_owner
        raise TooManyJobs(f"You have {limit} jobs that have not ended: wait until one has.")


def confirmation(owner: str, task_ids: list[str]) -> Command:
    """Return the command that counts jobs that were queued until they end."""
    return "EVAL", _CONFIRM, 1, jobs_key(owner), COUNTED_FOR, *task_ids


def addition(owner: str, task_ids: list[str]) -> Command:
    """Return the command that counts jobs of which nobody asked whether the limit admits them."""
    return "EVAL", _CONFIRM.replace("'XX', ", ""), 1, jobs_key(owner), COUNTED_FOR, *task_ids


def removal(owner: str, task_ids: list[str]) -> Command:
    """Return the command after which jobs that could not be queued are not counted."""
    return "ZREM", jobs_key(owner), *task_ids


def jobs_key(owner: str) -> bytes:
    """Return the key of an owner's jobs."""
    return result_key(f"/jobs/{owner}")
