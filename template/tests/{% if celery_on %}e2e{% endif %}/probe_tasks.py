"""Tasks that only these tests run: they do what goes wrong in production."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import redis.asyncio
import structlog
from celery import chain, chord, current_task, group
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text

from app.core.celery import celery_app, with_db_init
from app.core.database import get_db, session_scope
from app.core.redis import cache
from app.worker.flow_control import Concurrency, Debounce, Throttle, Unique
from app.worker.once import once
from app.worker.publish import enqueue
from app.worker.task_progress import progress
from app.worker.transport import Channel


def _go_deaf(flag: Path) -> None:
    """Let this worker ask for no messages while there is such a file, as after a reconnection that went wrong."""
    ask = Channel.send_take

    def ask_or_not(channel: Any) -> None:
        if not flag.exists():
            ask(channel)

    Channel.send_take = ask_or_not  # type: ignore[method-assign,assignment]


if os.environ.get("PROBE_DEAF"):
    _go_deaf(Path(os.environ["PROBE_DEAF"]))


def _work(seconds: float) -> None:
    threading.Event().wait(seconds)


@celery_app.task(name="probe.mark")
def mark(number: int, seconds: float = 0.01) -> int:
    """Work for a while, then count the run of this number."""
    _work(seconds)
    cache.sync.client.hincrby("probe:marks", str(number), 1)
    return number


@celery_app.task(name="probe.mark_once")
@with_db_init
async def mark_once(number: int) -> bool:
    """Queue `mark` for a number through the outbox, and never again for the same number."""
    async with session_scope() as db:
        is_first = await once(db, f"mark {number}")
        if is_first:
            await enqueue(mark.s(number), after_commit=db, outbox=True)
    return is_first


@celery_app.task(name="probe.interrupted")
def interrupted(number: int, seconds: float) -> None:
    """Work for a while the first time only, then count the run of this number."""
    if cache.sync.client.hincrby("probe:starts", str(number), 1) == 1:
        _work(seconds)
    cache.sync.client.hincrby("probe:marks", str(number), 1)


@celery_app.task(name="probe.stubborn")
def stubborn(number: int, seconds: float) -> None:
    """Work for a while, and do not listen to being told to stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(SystemExit):
            _work(0.2)
    cache.sync.client.hincrby("probe:marks", str(number), 1)


@celery_app.task(name="probe.fail")
def fail() -> None:
    """Raise."""
    raise ValueError("as it should")


@celery_app.task(name="probe.die", queue_name="long")
def die() -> None:
    """Kill the process that runs it, every time."""
    cache.sync.client.incr("probe:deaths")
    os.kill(os.getpid(), signal.SIGKILL)


@celery_app.task(name="probe.async_database", bind=True)
@with_db_init
async def async_database(self: Any, number: int) -> dict[str, Any]:
    """Use the database on the process's loop."""
    async for db in get_db():
        await asyncio.sleep(0)
        value = await db.scalar(text(f"SELECT {int(number)}"))
    return {
        "value": value,
        "id": self.request.id,
        "place": [os.getpid(), id(asyncio.get_running_loop()), id(db.bind)],
    }


@celery_app.task(name="probe.async_retry", bind=True, max_retries=2)
async def async_retry(self: Any) -> int:
    """Fail twice, then return how often it was retried."""
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@celery_app.task(name="probe.async_slow", soft_time_limit=1, time_limit=20)
async def async_slow() -> None:
    """Outlive its soft time limit."""
    await asyncio.sleep(15)


@celery_app.task(name="probe.overtime", soft_time_limit=1, time_limit=2)
def overtime() -> None:
    """Go on after the soft time limit."""
    with contextlib.suppress(SoftTimeLimitExceeded):
        _work(20)
    _work(20)


@celery_app.task(name="probe.own_loop")
@with_db_init
def own_loop(number: int) -> int:
    """Use the database as the specification's page does: `asyncio.run` inside a plain task."""

    async def read() -> int:
        async for db in get_db():
            return int(await db.scalar(text(f"SELECT {int(number)}")) or 0)
        raise AssertionError("get_db yielded nothing")

    run: Callable[[Any], int] = asyncio.run
    return run(read())


@celery_app.task(name="probe.echo")
def echo(value: Any) -> Any:
    """Return what it is given."""
    return value


@celery_app.task(name="probe.collect")
def collect(values: list[Any]) -> list[Any]:
    """Return the results of a chord's members."""
    return values


@celery_app.task(name="probe.start_chord")
def start_chord(numbers: list[int], seconds: float) -> str:
    """Queue a chord of marks from the worker, and return the id of its last task."""
    members = [mark.s(number, seconds) for number in numbers]
    return str(chord(members, collect.s()).apply_async().id)


@celery_app.task(name="probe.own_id", bind=True)
def own_id(self: Any, *_: object) -> str:
    """Return its id."""
    return str(self.request.id)


@celery_app.task(name="probe.fan_out", bind=True)
def fan_out(self: Any) -> None:
    """Become a group of two; their ids are the result."""
    raise self.replace(group(own_id.s(), chain(own_id.s(), own_id.s())))


@celery_app.task(name="probe.async_queues")
async def async_queues() -> str:
    """Queue a task and return its id."""
    return str((await enqueue(own_id.s())).id)


@celery_app.task(name="probe.hard_limit", time_limit=1)
def hard_limit() -> None:
    """Outlive a hard limit that is given alone."""
    with contextlib.suppress(SoftTimeLimitExceeded):
        _work(20)
    _work(20)


@contextlib.asynccontextmanager
async def _counted(name: str) -> AsyncIterator["redis.asyncio.Redis"]:
    """Count this task among those of that name that run now, and keep the highest count; give a client of the cache's database."""
    client = await cache.connected()
    running = await client.incr(f"probe:{name}:running")
    await client.zadd("probe:peaks", {name: running}, gt=True)
    try:
        yield client
    finally:
        await client.decr(f"probe:{name}:running")


async def _until_met(client: "redis.asyncio.Redis", number: int) -> None:
    while await client.scard("probe:met") < number:  # noqa: ASYNC110 - the others may run in another process
        await asyncio.sleep(0.05)


@celery_app.task(name="probe.async_meet")
async def async_meet(number: int, of: int, stay: float = 0) -> int:
    """Wait until `of` of these tasks run at the same time."""
    async with _counted("async_meet") as client:
        await client.sadd("probe:met", number)
        await _until_met(client, of)
        await asyncio.sleep(stay)
    return number


@celery_app.task(name="probe.def_meet")
def def_meet(seconds: float) -> None:
    """Be counted like `async_meet`."""
    client = cache.sync.client
    client.zadd("probe:peaks", {"def_meet": client.incr("probe:def_meet:running")}, gt=True)
    _work(seconds)
    client.decr("probe:def_meet:running")


@celery_app.task(name="probe.async_cleans_up", soft_time_limit=1, time_limit=20)
async def async_cleans_up() -> str:
    """Handle its soft time limit."""
    try:
        async with asyncio.timeout(15):
            await asyncio.gather(asyncio.sleep(15), asyncio.sleep(15))
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.1)
        return "cleaned up"
    return "not interrupted"


@celery_app.task(name="probe.async_overtime", soft_time_limit=1, time_limit=2)
async def async_overtime() -> None:
    """Go on after the soft time limit."""
    with contextlib.suppress(SoftTimeLimitExceeded):
        await asyncio.sleep(20)
    await asyncio.sleep(20)


@celery_app.task(name="probe.async_mark")
async def async_mark(number: int, seconds: float = 0.01) -> int:
    """Wait for a while the first time only, count the run of this number, and count it separately if it was cancelled."""
    client = await cache.connected()
    try:
        if await client.hincrby("probe:starts", str(number), 1) == 1:
            await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await client.hincrby("probe:cancelled", str(number), 1)
        raise
    await client.hincrby("probe:marks", str(number), 1)
    return number


@celery_app.task(name="probe.async_exit", max_retries=0)
async def async_exit() -> None:
    """Exit, as code does that was a program once."""
    await asyncio.sleep(0)
    sys.exit(1)


@celery_app.task(name="probe.async_context", bind=True)
async def async_context(self: Any, number: int) -> list[Any]:
    """Return what the task sees of itself, before and after another one ran, and of the task that it queued."""

    def seen() -> list[Any]:
        context = structlog.contextvars.get_contextvars()
        return [self.request.id, current_task.request.id, context["task_id"], context.get("number")]

    structlog.contextvars.bind_contextvars(number=number)
    before = seen()
    client = await cache.connected()
    await client.sadd("probe:met", number)
    await _until_met(client, 2)
    child = own_parent.delay()
    return [before, seen(), await asyncio.gather(_request_id_in_a_subtask(self)), child.id]


async def _request_id_in_a_subtask(task: Any) -> str:
    await asyncio.sleep(0)
    return str(task.request.id)


@celery_app.task(name="probe.own_parent", bind=True)
def own_parent(self: Any) -> str:
    """Return the id of the task that queued it."""
    return str(self.request.parent_id)


def _hold(number: int, seconds: float) -> None:
    """Count the start and how many of these tasks run now, and work the first time only: for a while, or until all may end."""
    client = cache.sync.client
    client.rpush("probe:flow:starts", f"{time.time()} {number}")
    running = client.incr("probe:flow:running")
    client.zadd("probe:peaks", {"flow": running}, gt=True)
    if client.hincrby("probe:starts", str(number), 1) == 1:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not client.exists("probe:flow:end"):
            _work(min(seconds, 0.05))
    client.decr("probe:flow:running")
    client.hincrby("probe:marks", str(number), 1)


@celery_app.task(name="probe.concurrent", concurrency=Concurrency(2))
def concurrent(number: int, seconds: float = 0.05) -> None:
    """Run at most twice at a time."""
    _hold(number, seconds)


@celery_app.task(name="probe.single", concurrency=Concurrency(1, "key"), time_limit=60)
def single(number: int, seconds: float = 0.05, key: str = "") -> None:
    """Run once at a time per key."""
    _hold(number, seconds)


@celery_app.task(name="probe.single_async", concurrency=Concurrency(1))
async def single_async(number: int, seconds: float = 0.05) -> None:
    """Run once at a time."""
    client = await cache.connected()
    running = await client.incr("probe:flow:running")
    await client.zadd("probe:peaks", {"flow": running}, gt=True)
    await asyncio.sleep(seconds)
    await client.decr("probe:flow:running")
    await client.hincrby("probe:marks", str(number), 1)


@celery_app.task(name="probe.throttled", throttle=Throttle(3, per=2))
def throttled(number: int) -> None:
    """Start at most three times in two seconds."""
    _hold(number, 0)


@celery_app.task(name="probe.debounced", debounce=Debounce(1))
def debounced(number: int) -> None:
    """Run for the last call only."""
    _hold(number, 0)


@celery_app.task(name="probe.unique", unique=Unique("number"), time_limit=2)
def unique(number: int, seconds: float = 0) -> None:
    """Be queued or run once per number."""
    _hold(number, seconds)


@celery_app.task(name="probe.versioned", version=2)
def versioned() -> None:
    """Have a version."""


@celery_app.task(name="probe.progress")
def report_progress(of: int) -> None:
    """Report each of some steps."""
    for number in range(1, of + 1):
        progress(number, of, "working")
        _work(0.2)


@celery_app.task(name="probe.async_progress")
async def report_progress_async(of: int) -> None:
    """Report each of some steps."""
    for number in range(1, of + 1):
        progress(number, of, "working")
        await asyncio.sleep(0.2)


@celery_app.task(name="probe.mended", bind=True, dead_letter=True, max_retries=1)
def mended(self: Any, number: int) -> int:
    """Fail, also when it is retried, until it is mended."""
    if not cache.sync.client.exists("probe:mended"):
        raise self.retry(countdown=0, exc=ValueError("not mended"))
    return number


@celery_app.task(name="probe.mended_late", dead_letter=True, time_limit=1)
def mended_late() -> None:
    """Outlive its hard time limit."""
    with contextlib.suppress(SoftTimeLimitExceeded):
        _work(20)
    _work(20)
