"""Whether workers and beat live and get on: a file for the probe on their own host, a key in Redis for GET /ready."""

import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from celery import current_app
from celery.concurrency.solo import TaskPool as SoloPool
from celery.utils.log import get_logger
from celery.worker import state

from app.core.config.celery import celery_settings
from app.probe import heartbeat_folder
from app.worker.heartbeat import Beating
from app.worker.publish import in_thread

EVERY = celery_settings.liveness_interval
"""Seconds between two heartbeats."""

EXPIRES = math.ceil(4 * EVERY)
"""Seconds after which a heartbeat is forgotten in Redis; by default, with GET /ready's own time, below 30."""

_STALLED_AFTER = 3 * EVERY
_WORKERS = "workers"

_logger = get_logger(__name__)
_state: Any = state


class Heartbeat(Beating):
    """Says that this worker lives: only while it is connected, its loop turns and it takes the messages that wait."""

    what = "worker heartbeat"
    interval = EVERY

    def __init__(self, consumer: Any, **options: object) -> None:
        super().__init__(consumer, **options)
        self._name = consumer.hostname
        self._progress = Progress(consumer)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Start the heartbeat; called again after a lost connection."""
        self._progress.start()
        self._timer = consumer.timer.call_repeatedly(EVERY, self._progress.loop_turned)
        super().start(consumer)

    def stop(self, consumer: Any) -> None:
        """Stop the heartbeat: the worker is no longer connected, or takes no more tasks."""
        super().stop(consumer)
        if self._timer is not None:
            self._timer.cancel()

    def beat(self, channel: Any) -> None:
        """Say that the worker lives, if it gets on."""
        if not self._progress.stalled(channel):
            touch("worker")
            say(channel.client, "worker")
            _sign_in(channel.client, self._name)


class Progress:
    """Whether a worker's consumer gets on. One that came back from a lost Redis may be connected and yet take nothing."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._taken = 0
        self._turned = self._good = time.monotonic()
        self._told = False

    def start(self) -> None:
        """Begin anew: the worker has just connected."""
        self._turned = self._good = time.monotonic()

    def loop_turned(self) -> None:
        """Note that the consumer's loop is not stuck."""
        self._turned = time.monotonic()

    def stalled(self, channel: Any) -> bool:
        """Return whether the worker has done nothing for a while although it should; `channel` is to count messages with."""
        now = time.monotonic()
        if self._gets_on(channel, now):
            self._good = now
        stalled = now - self._good > _STALLED_AFTER
        if stalled and not self._told:
            _logger.error("this worker is connected and takes no messages: its heartbeat stops, for a restart")
        self._told = stalled
        return stalled

    def _gets_on(self, channel: Any, now: float) -> bool:
        taken, self._taken = self._taken, _state.all_total_count[0]
        busy = bool(_state.active_requests)
        if busy and isinstance(self._consumer.pool, SoloPool):
            # The task runs where the loop would turn.
            self._turned = now
        if now - self._turned > _STALLED_AFTER:
            return False
        if busy or taken != self._taken or self._holds_back():
            return True
        tasks = self._consumer.task_consumer
        # Of kombu's ways to count, the one that does not raise for an empty queue.
        waiting = any(channel._size(queue.name) for queue in tasks.queues)  # noqa: SLF001
        return not waiting and bool(tasks.channel.qos.can_consume())

    def _holds_back(self) -> bool:
        """Return whether it takes nothing for a reason: as many countdowns as it may hold, or a rate limit."""
        limited = any(bucket and bucket.contents for bucket in self._consumer.task_buckets.values())
        limit = self._consumer.app.conf.worker_eta_task_limit
        return limited or bool(limit and len(_state.scheduled_requests) >= limit)


def touch(what: str) -> None:
    """Leave a heartbeat for `app/probe.py`."""
    Path(heartbeat_folder(), f"{what}.heartbeat").touch()


def say(client: Any, what: str, expires: int = EXPIRES) -> None:
    """Leave a heartbeat in the broker's database, where it is forgotten after `expires` seconds."""
    client.set(_key(what), int(time.time()), ex=expires)


def say_through_pool(app: Any, what: str, expires: int = EXPIRES) -> None:
    """Do the same on a connection of the application's pool.

    Raises:
        kombu.exceptions.OperationalError, redis.exceptions.RedisError: Redis does not answer.
    """
    with app.pool.acquire(block=True, timeout=2) as connection:
        say(connection.default_channel.client, what, expires)


def living_workers(client: Any) -> int:
    """Return how many workers were heard of in the last `EXPIRES` seconds; `client` is one of the broker's database.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return int(client.zcount(_WORKERS, client.time()[0] - EXPIRES, "+inf"))


def _sign_in(client: Any, name: str) -> None:
    # Redis's own time: the clocks of hosts differ.
    now = client.time()[0]
    client.zadd(_WORKERS, {name: now})
    client.zremrangebyscore(_WORKERS, "-inf", now - EXPIRES)


def check(what: str) -> Callable[[], Awaitable[None]]:
    """Return a check for GET /ready: it raises if no heartbeat of `what` is there, or Redis does not answer."""

    async def heard_of() -> None:
        if not await in_thread(_is_known, what):
            raise RuntimeError(f"no heartbeat: {what}")

    return heard_of


def _is_known(what: str) -> bool:
    pool: Any = current_app.pool
    with pool.acquire(block=True, timeout=2) as connection:
        return bool(connection.default_channel.client.exists(_key(what)))


def _key(what: str) -> str:
    return f"alive:{what}"
