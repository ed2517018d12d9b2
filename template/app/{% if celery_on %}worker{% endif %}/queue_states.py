"""How many messages wait in each queue and for how long, how many tasks run, and whether the queue is paused."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery import current_app

from app.worker import messages, paused_queues, worker_reports
from app.worker.broker import lua_script
from app.worker.worker_reports import Report

# A message is not decoded: it may have some megabytes. The name of a key stands in quotes, which are escaped inside of values.
_READ = lua_script("""#!lua flags=no-writes
-- ARGV: endings of the lists' names after that of the queue as JSON, the queues
-- Return the time, then for each queue how many messages are in its lists, how many wait for a rule, and when the oldest was
-- published or ''.
local RULES = 100
local waiting, oldest = {}, {}

local function look_at(queue, message)
    local published = message and tonumber(string.match(message, '"published_at": ?(%d+%.?%d*)'))
    if published and (not oldest[queue] or published < oldest[queue]) then
        oldest[queue] = published
    end
end

for i = 2, #ARGV do
    local queue = ARGV[i]
    waiting[queue] = 0
    for _, ending in ipairs({'', unpack(cjson.decode(ARGV[1]))}) do
        local length = redis.pcall('LLEN', queue .. ending)
        -- A key of another type is no list of messages.
        if type(length) == 'number' then
            waiting[queue] = waiting[queue] + length
            look_at(queue, redis.call('LINDEX', queue .. ending, -1))
        end
    end
end
for _, rule in ipairs(redis.call('ZRANGE', 'flow:waiting', 0, RULES - 1)) do
    local entry = redis.call('LINDEX', rule .. ':waiting', -1)
    if entry then
        local message = cmsgpack.unpack(entry)
        look_at(message[2], message[4])
    end
end
local reply = {redis.call('TIME')[1]}
for i = 2, #ARGV do
    local queue = ARGV[i]
    reply[#reply + 1] = waiting[queue]
    reply[#reply + 1] = tonumber(redis.call('HGET', 'flow:depths', queue) or 0)
    reply[#reply + 1] = oldest[queue] and string.format('%.3f', oldest[queue]) or ''
end
return reply
""")


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue, as Redis and the reports of its workers have it."""

    name: str
    waiting: int
    """Messages that a worker can take."""
    waiting_for_rules: int
    """Messages that wait for a rule of `flow_control`."""
    oldest: float | None
    """Seconds since the oldest of them was published, by the clocks of its publisher and of Redis; None if there is none."""
    running: int
    taken: int
    """Tasks that workers have taken and that wait in them."""
    paused_since: datetime | None
    workers: int
    """Workers whose queue it is."""
    workers_paused: int
    """Workers of these that take nothing from it."""


def read(client: Any) -> tuple[list[QueueState], int]:
    """Return the declared queues and those that are paused, and how many workers have sent no report.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    app: Any = current_app
    paused = paused_queues.read(client)
    names = sorted({*app.amqp.queues, *paused})
    now, *values = _READ(client, [], [_endings(), *names])
    found = worker_reports.workers(client)
    reports = [worker.report for worker in found if worker.report is not None]
    states = [
        _state(name, float(now), values[3 * number : 3 * number + 3], reports, paused.get(name))
        for number, name in enumerate(names)
    ]
    return states, len(found) - len(reports)


def _state(name: str, now: float, values: list[Any], reports: list[Report], since: datetime | None) -> QueueState:
    waiting, for_rules, published = values
    consuming = sum(name in report.consumes for report in reports)
    paused = sum(name in report.paused for report in reports)
    return QueueState(
        name=name,
        waiting=int(waiting),
        waiting_for_rules=max(0, int(for_rules)),
        oldest=max(0.0, now - float(published)) if published else None,
        running=sum(report.running.get(name, 0) for report in reports),
        taken=sum(report.taken.get(name, 0) for report in reports),
        paused_since=since,
        workers=consuming + paused,
        workers_paused=paused,
    )


def _endings() -> str:
    return json.dumps(messages.keys().endings)
