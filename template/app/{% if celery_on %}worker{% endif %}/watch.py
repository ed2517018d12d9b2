"""Watch tasks: `async for record in watch(task_id)`, and the streams of GET /tasks/{task_id}/events.

All watchers of an event loop share one Redis connection, which subscribes to the channel of each watched record. A message only
means that the record has changed. It is read then, so that a lost message loses nothing, and a late one never takes a task back.
A watcher that is slower than its task gets the newest record, and none of those in between.
"""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery import states
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker import history
from app.worker.broker import in_thread
from app.worker.history import TaskRecord
from app.worker.pipeline import Commands, execute, results_connection
from app.worker.records import record_key
from app.worker.status import UNTRACKED

_CHECK_EVERY = 15.0
"""Seconds after which all watched records are read: a message may be lost, and the record of a task may expire."""

_SILENCE = 2 * _CHECK_EVERY
"""Seconds without an answer after which the subscription has failed."""

_ROUND = 0.1
"""Seconds between two reads of a record: a task may change faster than anybody watches."""

_RETRY_AFTER = 1.0
_AT_ONCE = 100
"""Records of one round trip, which requests share."""

_logger = structlog.get_logger(__name__)


class TooManyWatchers(Exception):
    """This process has `CELERY_MAX_WATCHERS` watchers of tasks already."""


async def watch(task_id: str) -> AsyncGenerator[TaskRecord]:
    """Yield the record of a task now and when it changes, until the task has ended; nothing for an id without a record.

    It also ends if the record expires, and when the API stops. While Redis does not answer, it waits. A task that ignores
    its result ends it in the state UNTRACKED.

    Raises:
        app.worker.broker.QueueUnavailable: Redis does not answer when it begins.
        TooManyWatchers: this process has `CELERY_MAX_WATCHERS` watchers.
    """
    record = await in_thread(history.read, task_id)
    if record is not None:
        with watching(record) as watcher:
            async for one in watcher.records():
                yield one


def has_ended(record: TaskRecord) -> bool:
    """Return whether nobody needs to watch the task: it has ended, or it ignores its result."""
    return record.state in states.READY_STATES or record.state == UNTRACKED


class Watcher:
    """Who watches one task."""

    def __init__(self, record: TaskRecord) -> None:
        self.task_id = record.task_id
        self._newest = record
        self._is_stopped = False
        self._changed = asyncio.Event()
        self._changed.set()

    def offer(self, record: TaskRecord) -> None:
        """Replace what was not yielded yet."""
        self._newest = record
        self._changed.set()

    def stop(self) -> None:
        """End the watching, after what was not yielded yet."""
        self._is_stopped = True
        self._changed.set()

    async def records(self) -> AsyncIterator[TaskRecord]:
        """Yield the first record and the newest one after each change."""
        last = None
        while True:
            await self._changed.wait()
            self._changed.clear()
            record = self._newest
            if record != last:
                last = record
                yield record
            if self._is_stopped or has_ended(record):
                return


@contextmanager
def watching(record: TaskRecord) -> Iterator[Watcher]:
    """Watch a task, whose record was just read, during the block.

    Raises:
        TooManyWatchers: this process has `CELERY_MAX_WATCHERS` watchers.
    """
    loop = asyncio.get_running_loop()
    for other in list(_hubs):
        if other.is_closed():
            _hubs.pop(other, None)
    if sum(hub.count for hub in list(_hubs.values())) >= celery_settings.max_watchers:
        raise TooManyWatchers(f"this process has {celery_settings.max_watchers} watchers of tasks; try again later.")
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = _Hub(loop)
    watcher = Watcher(record)
    hub.add(watcher)
    try:
        yield watcher
    finally:
        hub.remove(watcher)
        if not hub.count:
            hub.close()


def stop_all() -> None:
    """End all watching in this event loop."""
    hub = _hubs.get(asyncio.get_running_loop())
    if hub is not None:
        hub.stop_all()


class _Hub:
    """The watchers of an event loop, and the connection that they share."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.count = 0
        self._loop = loop
        self._watchers: dict[bytes, set[Watcher]] = {}
        """By the key of the record, which is the name of its channel too."""
        self._to_read: set[bytes] = set()
        self._must_read = asyncio.Event()
        self._must_subscribe = asyncio.Event()
        self._is_interrupted = False
        # Not in the context of the first watcher.
        self._tasks = [
            loop.create_task(run(), context=contextvars.Context()) for run in (self._stay_subscribed, self._read)
        ]
        for task in self._tasks:
            task.add_done_callback(self._failed)

    def add(self, watcher: Watcher) -> None:
        key = record_key(watcher.task_id)
        self.count += 1
        self._watchers.setdefault(key, set()).add(watcher)
        self._must_subscribe.set()
        # If others watch the task, what changed since this record was read has been told already.
        self._look_at([key])

    def remove(self, watcher: Watcher) -> None:
        key = record_key(watcher.task_id)
        self.count -= 1
        self._watchers[key].remove(watcher)
        if not self._watchers[key]:
            del self._watchers[key]
            self._must_subscribe.set()

    def stop_all(self) -> None:
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.stop()

    def close(self) -> None:
        if _hubs.get(self._loop) is self:
            del _hubs[self._loop]
        for task in self._tasks:
            task.cancel()

    def _failed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error:
            # Nobody waits for what no longer comes.
            _logger.error("watching_failed", error=error_repr(error))
            self.stop_all()
            self.close()

    async def _stay_subscribed(self) -> None:
        while True:
            connection = results_connection()
            try:
                async with asyncio.timeout(celery_settings.publish_timeout):
                    await connection.connect()
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._subscribe(connection))
                    both.create_task(self._listen(connection))
            except* (RedisError, OSError) as errors:
                if not self._is_interrupted:
                    self._is_interrupted = True
                    _logger.warning("watching_interrupted", error=error_repr(errors.exceptions[0]))
            finally:
                await connection.disconnect(nowait=True)
            # Without a subscription, records are still read.
            self._look_at(self._watchers)
            await asyncio.sleep(_RETRY_AFTER)

    async def _subscribe(self, connection: Any) -> None:
        """Subscribe to the channels of what is watched, and unsubscribe from others; without end."""
        subscribed: set[bytes] = set()
        check_at = self._loop.time() + _CHECK_EVERY
        while True:
            self._must_subscribe.clear()
            watched = set(self._watchers)
            for command, channels in (("SUBSCRIBE", watched - subscribed), ("UNSUBSCRIBE", subscribed - watched)):
                if channels:
                    await connection.send_command(command, *channels, check_health=False)
            subscribed = watched
            try:
                async with asyncio.timeout_at(check_at):
                    await self._must_subscribe.wait()
            except TimeoutError:
                check_at = self._loop.time() + _CHECK_EVERY
                await connection.send_command("PING", check_health=False)
                self._look_at(self._watchers)

    async def _listen(self, connection: Any) -> None:
        """Note which records have changed; without end."""
        while True:
            message = await connection.read_response(timeout=_SILENCE, push_request=True, disconnect_on_error=False)
            if message is None:
                raise TimeoutError("Redis does not answer")
            # With the answer to SUBSCRIBE: what changed before it has no message.
            if isinstance(message, list) and message[0] in {b"message", b"subscribe"}:
                if self._is_interrupted:
                    self._is_interrupted = False
                    _logger.info("watching_resumed")
                self._look_at([message[1]])

    def _look_at(self, keys: Iterable[bytes]) -> None:
        self._to_read.update(keys)
        self._must_read.set()

    async def _read(self) -> None:
        """Read the records that have changed, for their watchers; without end."""
        while True:
            await self._must_read.wait()
            self._must_read.clear()
            changed, self._to_read = [key for key in self._to_read if key in self._watchers], set()
            pause = _ROUND
            for first in range(0, len(changed), _AT_ONCE):
                keys = changed[first : first + _AT_ONCE]
                (texts,) = (await execute(Commands(before=[("MGET", *keys)]))).before
                if isinstance(texts, Exception):
                    pause = _RETRY_AFTER
                    self._look_at(changed[first:])
                    break
                for key, text in zip(keys, texts, strict=True):
                    self._offer(key, text)
            await asyncio.sleep(pause)

    def _offer(self, key: bytes, text: bytes | None) -> None:
        watchers = self._watchers.get(key)
        if not watchers:
            return
        record = history.parse(next(iter(watchers)).task_id, text)
        for watcher in watchers:
            if record is None:
                watcher.stop()
            else:
                watcher.offer(record)


_hubs: dict[asyncio.AbstractEventLoop, _Hub] = {}
