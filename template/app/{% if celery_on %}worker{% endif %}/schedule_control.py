"""What operators see of the schedule, and what they ask of it: beat stores its entries, skips paused ones and runs those that are asked
for. All of it is in the broker's database, and outlives both beat and the API.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery.utils import uuid
from celery.utils.log import get_logger

from app.core.logging import error_repr
from app.worker import last_runs, liveness, schedule_health
from app.worker.broker import OUTAGES, broker_client, lua_script

ENTRIES = "schedule/entries"
PAUSED = "schedule/paused"
RUNS = "schedule/runs"
REQUESTS = "schedule/requests"

KEYS = (ENTRIES, PAUSED, RUNS, REQUESTS)

REQUESTED_FOR = 60
"""Seconds within which beat must run an entry that is asked for; a later one is forgotten."""

_EXPIRES = 30 * 86400
_logger = get_logger(__name__)

# All of them also in a full Redis: little, and an entry that is paused may be the reason.
_PAUSE = lua_script("#!lua flags=allow-oom\nredis.call('HSETNX', KEYS[1], ARGV[1], redis.call('TIME')[1])")
_RESUME = lua_script("#!lua flags=allow-oom\nredis.call('HDEL', KEYS[1], ARGV[1])")
_REQUEST = lua_script("""#!lua flags=allow-oom
-- Ask for a run, unless it is asked for already; return the id of its task.
-- KEYS: requests  ARGV: entry, id, seconds
local now = tonumber(redis.call('TIME')[1])
local id, time = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%S+) (%d+)$')
if id and now - tonumber(time) < tonumber(ARGV[3]) then
    return id
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. now)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return ARGV[2]
""")
_DONE = lua_script("""#!lua flags=allow-oom
-- KEYS: requests  ARGV: entry, what was read
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
    redis.call('HDEL', KEYS[1], ARGV[1])
end
""")


@dataclass(frozen=True, slots=True)
class Description:
    """An entry as beat has it."""

    task: str
    schedule: str
    next_run: int | None
    """When it is due, in seconds since 1970; None if never, or unknown."""
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the schedule, with what has happened to it."""

    name: str
    description: Description
    last_run: datetime | None
    last_task: str | None
    """The id of the task that was queued last, by beat or for an operator."""
    paused_since: datetime | None
    error: str | None
    """The type of the error because of which it could not be queued when it was last due."""


def is_paused(entry: str) -> bool:
    """Return whether an entry is paused.

    Raises:
        kombu.exceptions.OperationalError, redis.exceptions.RedisError: Redis does not answer.
    """
    with broker_client() as client:
        return bool(client.hexists(PAUSED, entry))


def store(entries: Mapping[str, Description]) -> None:
    """Store the entries of the schedule, instead of those that were stored before.

    Raises:
        kombu.exceptions.OperationalError, redis.exceptions.RedisError: Redis does not answer.
    """
    texts = {name: json.dumps([one.task, one.schedule, one.next_run, one.enabled]) for name, one in entries.items()}
    with broker_client() as client, client.pipeline() as pipe:
        pipe.delete(ENTRIES)
        if texts:
            pipe.hset(ENTRIES, mapping=texts)
            pipe.expire(ENTRIES, _EXPIRES)
        pipe.execute()


def record_run(entry: str, task_id: str) -> None:
    """Store which task was queued for an entry. If Redis does not answer, its last task stays unknown."""
    try:
        with broker_client() as client, client.pipeline() as pipe:
            pipe.hset(RUNS, entry, json.dumps([task_id, datetime.now(UTC).timestamp()]))
            pipe.expire(RUNS, _EXPIRES)
            pipe.execute()
    except OUTAGES as error:
        _logger.warning("the last run of the schedule's entry %r is not stored: %s", entry, error_repr(error))


def requests() -> dict[str, str]:
    """Return the entries that are to run now, each with what `done` wants of it.

    Raises:
        kombu.exceptions.OperationalError, redis.exceptions.RedisError: Redis does not answer.
    """
    with broker_client() as client:
        found, now = client.hgetall(REQUESTS), client.time()[0]
    texts = {name.decode(): value.decode() for name, value in found.items()}
    return {name: text for name, text in texts.items() if now - int(text.partition(" ")[2]) < REQUESTED_FOR}


def requested_id(request: str) -> str:
    """Return the id of the task of a request."""
    return request.partition(" ")[0]


def done(entry: str, request: str) -> None:
    """Forget a request, whose task is queued or cannot be.

    Raises:
        kombu.exceptions.OperationalError, redis.exceptions.RedisError: Redis does not answer.
    """
    with broker_client() as client:
        _DONE(client, [REQUESTS], [entry, request])


def request_run(client: Any, entry: str) -> str:
    """Ask beat to run an entry now, and return the id that its task gets; `client` is one of the broker's database.

    Raises:
        redis.exceptions.RedisError: Redis refused it, or its answer was lost.
    """
    return str(_REQUEST(client, [REQUESTS], [entry, uuid(), REQUESTED_FOR]).decode())


def pause(client: Any, entry: str) -> None:
    """Have beat skip an entry; see `request_run`."""
    _PAUSE(client, [PAUSED], [entry])


def resume(client: Any, entry: str) -> None:
    """Have beat run an entry again when it is due the next time; see `request_run`."""
    _RESUME(client, [PAUSED], [entry])


def read(client: Any) -> tuple[list[Entry], bool]:
    """Return the entries by name, and whether beat is alive.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    with client.pipeline(transaction=False) as pipe:
        for key in (ENTRIES, PAUSED, RUNS, last_runs.KEY, schedule_health.KEY):
            pipe.hgetall(key)
        entries, paused, runs, times, errors = pipe.execute()
    found = [
        _entry(name, json.loads(text), paused.get(name), runs.get(name), times.get(name), errors.get(name))
        for name, text in sorted(entries.items())
    ]
    return found, liveness.is_alive(client, "beat")


def _entry(
    name: bytes, described: list[Any], paused: bytes | None, run: bytes | None, time: bytes | None, error: bytes | None
) -> Entry:
    last_task, last_run = json.loads(run) if run else (None, None)
    # An earlier release stored only the time.
    last_run = max(filter(None, (last_run, float(time) if time else None)), default=None)
    return Entry(
        name=name.decode(),
        description=Description(*described[:4]),
        last_run=_time(last_run),
        last_task=last_task,
        paused_since=_time(int(paused)) if paused else None,
        error=error.decode() if error else None,
    )


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
