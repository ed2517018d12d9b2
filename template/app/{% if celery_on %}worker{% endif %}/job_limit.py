"""The limit on an owner's unfinished jobs. A job is what one call of `enqueue` queues, whatever that queues later."""

from typing import Any, NamedTuple
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
local new = {}
for number = 5, #ARGV do
    if not redis.call('ZSCORE', KEYS[1], ARGV[number]) then
        new[#new + 1] = ARGV[number]
    end
end
if redis.call('ZCARD', KEYS[1]) + #new > tonumber(ARGV[1]) then
    return false
end
for _, id in ipairs(new) do
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), id)
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return new
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


class Jobs(NamedTuple):
    """What is queued, with the owner who may have a limited number of them."""

    owner: str | None
    task_ids: list[str]
    new: list[str]
    """Those that were not counted before. The others were queued, or may have been, under the same ids."""


def admit(owner: str, signature: Signature[Any]) -> Jobs | None:
    """Count a job that is about to be queued, and return it with the id that it must get; None for a group: its end is not known.

    Raises:
        TooManyJobs: the limit is reached.
        redis.exceptions.RedisError: Redis does not answer.
    """
    if isinstance(signature, group):
        return None
    task_ids = [new_id(signature)]
    return admitted(owner, task_ids, results_client().execute_command(*admission(owner, task_ids)))


def confirm(jobs: Jobs) -> None:
    """Count jobs that were queued until they end.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    for command in confirmation(jobs):
        results_client().execute_command(*command)


def remove(jobs: Jobs) -> None:
    """Do not count jobs that could not be queued.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    for command in removal(jobs):
        results_client().execute_command(*command)


def new_id(signature: Signature[Any]) -> str:
    """Return the id that a signature has or gets."""
    return str(signature.options.get("task_id") or uuid4())


def admission(owner: str, task_ids: list[str]) -> Command:
    """Return the command that counts jobs that are about to be queued: all or none of them; see `admitted`."""
    # They may never be published: a process that dies before leaves them counted for a minute only.
    states = result_key("/")[:-1]
    limit = celery_settings.max_jobs_per_owner
    return "EVAL", _ADMIT, 1, jobs_key(owner), limit, _PUBLISHED_WITHIN, states, COUNTED_FOR, *task_ids


def admitted(owner: str, task_ids: list[str], reply: Any) -> Jobs:
    """Return the jobs, given the reply to `admission`.

    Raises:
        TooManyJobs: the limit is reached.
    """
    if reply is None:
        limit = celery_settings.max_jobs_per_owner
        raise TooManyJobs(f"You have {limit} jobs that have not ended: wait until one has.")
    return Jobs(owner, task_ids, [task_id.decode() for task_id in reply])


def confirmation(jobs: Jobs) -> list[Command]:
    """Return the commands that count jobs that were queued until they end."""
    return [("EVAL", _CONFIRM, 1, jobs_key(jobs.owner), COUNTED_FOR, *jobs.task_ids)] if jobs.owner else []


def addition(owner: str, task_ids: list[str]) -> Command:
    """Return the command that counts jobs of which nobody asked whether the limit admits them."""
    return "EVAL", _CONFIRM.replace("'XX', ", ""), 1, jobs_key(owner), COUNTED_FOR, *task_ids


def removal(jobs: Jobs) -> list[Command]:
    """Return the commands after which jobs that could not be queued are not counted."""
    return [("ZREM", jobs_key(jobs.owner), *jobs.new)] if jobs.owner and jobs.new else []


def jobs_key(owner: str) -> bytes:
    """Return the key of an owner's jobs."""
    return result_key(f"/jobs/{owner}")
