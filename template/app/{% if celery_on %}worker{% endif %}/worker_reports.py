"""What each worker consumes and runs: it reports that to the broker's database, with its liveness heartbeat's interval.

A report expires as a heartbeat does. `running_tasks` asks the workers themselves, which takes up to a second.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery import current_app
from celery.concurrency.thread import TaskPool as ThreadsPool
from celery.worker import state
from celery.worker.control import inspect_command
from redis.exceptions import ConnectionError as RedisConnectionError

from app.core.config.celery import celery_settings
from app.worker import liveness
from app.worker.broker import lua_script

MAX_TASKS = 100
"""Running tasks that a worker names in an answer."""

_COMMAND = "running_tasks"
# Shorter than the time within which a request must be answered.
_ANSWER_WITHIN = min(0.8, celery_settings.publish_timeout / 3)
_state: Any = state

# A full Redis takes it, as a heartbeat.
_SET = lua_script("#!lua flags=allow-oom\nredis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])")


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker has reported last."""

    pid: int
    pool: str
    concurrency: int
    consumes: list[str]
    """The queues from which it takes messages."""
    paused: list[str]
    """Its queues from which it takes none, because they are paused."""
    running: dict[str, int]
    """Running tasks by queue."""
    taken: dict[str, int]
    """Tasks that it has taken from each queue and that wait in it: for a process, or for their ETA."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that has sent a heartbeat in the last `liveness.EXPIRES` seconds."""

    name: str
    heartbeat: datetime
    report: Report | None
    """None if it has sent none: it is starting, or of a release without reports."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a worker runs."""

    task_id: str
    name: str
    queue: str | None
    started: datetime | None


def send(client: Any, consumer: Any, *, consumes: Iterable[str], paused: Iterable[str]) -> None:
    """Report what a worker consumes and runs; `client` is one of the broker's database.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    running, waiting = _requests()
    report = {
        "pid": os.getpid(),
        "pool": _pool_name(consumer.pool),
        "concurrency": consumer.pool.num_processes,
        "consumes": sorted(consumes),
        "paused": sorted(paused),
        "running": _by_queue(running),
        "taken": _by_queue(waiting),
    }
    _SET(client, [_key(consumer.hostname)], [json.dumps(report), liveness.EXPIRES])


def workers(client: Any) -> list[Worker]:
    """Return the workers that are alive, by name.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    heartbeats = liveness.heartbeats(client)
    names = sorted(heartbeats)
    texts = client.mget(map(_key, names)) if names else []
    return [
        Worker(name, heartbeats[name], _report(json.loads(text)) if text else None)
        for name, text in zip(names, texts, strict=True)
    ]


def running_tasks(names: list[str]) -> dict[str, list[RunningTask]]:
    """Return what each of these workers runs. One that does not answer within a second is missing.

    Raises:
        kombu.exceptions.OperationalError, redis.exceptions.RedisError: Redis does not answer.
    """
    if not names:
        return {}
    try:
        replies = _ask(names)
    except RedisConnectionError:
        # Redis has closed a connection of the pool; if it is down, the second attempt fails at once.
        replies = _ask(names)
    return {
        name: [_task(task) for task in tasks]
        for reply in replies
        for name, tasks in reply.items()
        # A worker of another release answers with an error.
        if isinstance(tasks, list)
    }


def _ask(names: list[str]) -> list[dict[str, Any]]:
    return current_app.control.broadcast(_COMMAND, destination=names, reply=True, timeout=_ANSWER_WITHIN) or []


@inspect_command(name=_COMMAND)
def _running_tasks(state: Any, **_: object) -> Any:
    """List the running tasks without their arguments, those that have run for longest first."""
    running, _waiting = _requests()
    running.sort(key=lambda request: request.time_start or 0)
    return [[request.id, request.name, _queue(request), request.time_start] for request in running[:MAX_TASKS]]


def _report(fields: dict[str, Any]) -> Report | None:
    # Another release may report more, or less.
    known = {name: fields[name] for name in Report.__dataclass_fields__ if name in fields}
    return Report(**known) if len(known) == len(Report.__dataclass_fields__) else None


def _task(values: list[Any]) -> RunningTask:
    task_id, name, queue, started = values
    return RunningTask(task_id, name, queue, datetime.fromtimestamp(started, UTC) if started else None)


def _requests() -> tuple[list[Any], list[Any]]:
    """Return the requests of tasks that run here, and of those that wait here."""
    while True:
        try:
            running = set(_state.active_requests)
            return list(running), list({*_state.reserved_requests, *_state.scheduled_requests} - running)
        except RuntimeError:
            # Another thread changed a set while it was read.
            continue


def _pool_name(pool: Any) -> str:
    return "threads" if isinstance(pool, ThreadsPool) else type(pool).__module__.rpartition(".")[2]


def _by_queue(requests: Iterable[Any]) -> dict[str, int]:
    return dict(Counter(queue for request in requests if (queue := _queue(request)) is not None))


def _queue(request: Any) -> str | None:
    queue = (request.delivery_info or {}).get("routing_key")
    return queue if isinstance(queue, str) else None


def _key(hostname: str) -> str:
    return f"workers/{hostname}"
