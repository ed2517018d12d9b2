"""The liveness heartbeat of workers and of beat: a file for the probe on the same host, a key in Redis for GET /ready."""

import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.core.config.celery import celery_settings
from app.probe import heartbeat_folder
from app.worker.broker import broker_client, in_thread, lua_script
from app.worker.heartbeat import HeartbeatThread
from app.worker.progress import ConsumerProgress

INTERVAL = celery_settings.liveness_interval
"""Seconds between two heartbeats."""

EXPIRES = math.ceil(4 * INTERVAL)
"""Seconds after which a heartbeat expires in Redis; by default, with the time that GET /ready takes, below 30."""

_STALLED_AFTER = 3 * INTERVAL
_WORKERS = "workers"

# A full Redis takes them: its workers are alive, and empty it.
_SET = lua_script("#!lua flags=allow-oom\nredis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])")
# By Redis's own time: the clocks of hosts differ.
_REGISTER = lua_script("""#!lua flags=allow-oom
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
""")


class LivenessHeartbeat(HeartbeatThread):
    """Report that this worker is alive, while it is connected, its event loop turns and it consumes the messages that wait."""

    label = "worker heartbeat"
    interval = INTERVAL

    def __init__(self, consumer: Any, **options: object) -> None:
        super().__init__(consumer, **options)
        self._hostname = consumer.hostname
        self._progress = ConsumerProgress(consumer, _STALLED_AFTER)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Start the heartbeat; called again after a lost connection."""
        self._progress.start()
        self._timer = consumer.timer.call_repeatedly(INTERVAL, self._progress.loop_turned)
        super().start(consumer)

    def stop(self, consumer: Any) -> None:
        """Stop the heartbeat: the worker is disconnected, or consumes no more tasks."""
        super().stop(consumer)
        if self._timer is not None:
            self._timer.cancel()

    def beat(self, channel: Any) -> None:
        """Report that the worker is alive, if it makes progress."""
        if not self._progress.is_stalled(channel):
            touch_probe_file("worker")
            _set_heartbeat(channel.client, "worker", EXPIRES)
            _register_worker(channel.client, self._hostname)


def touch_probe_file(part: str) -> None:
    """Write the heartbeat of a part of the system that `app/probe.py` checks."""
    Path(heartbeat_folder(), f"{part}.heartbeat").touch()


def send_heartbeat(part: str, expires: int = EXPIRES) -> None:
    """Write the heartbeat of a part of the system to the broker's database; it expires after `expires` seconds.

    Raises:
        kombu.exceptions.OperationalError, redis.exceptions.RedisError: Redis does not answer.
    """
    with broker_client() as client:
        _set_heartbeat(client, part, expires)


def count_workers(client: Any) -> int:
    """Return how many workers sent a heartbeat in the last `EXPIRES` seconds; `client` is one of the broker's database.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return int(client.zcount(_WORKERS, client.time()[0] - EXPIRES, "+inf"))


def heartbeats(client: Any) -> dict[str, datetime]:
    """Return the workers that sent a heartbeat in the last `EXPIRES` seconds, and when; see `count_workers`."""
    found = client.zrangebyscore(_WORKERS, client.time()[0] - EXPIRES, "+inf", withscores=True)
    return {name.decode(): datetime.fromtimestamp(when, UTC) for name, when in found}


def is_alive(client: Any, part: str) -> bool:
    """Return whether a part of the system has a heartbeat; `client` is one of the broker's database.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return bool(client.exists(_key(part)))


def check(part: str) -> Callable[[], Awaitable[None]]:
    """Return a check for GET /ready: it raises if `part` has no heartbeat or Redis does not answer."""

    async def check_heartbeat() -> None:
        if not await in_thread(_has_heartbeat, part):
            raise RuntimeError(f"no heartbeat: {part}")

    return check_heartbeat


def _set_heartbeat(client: Any, part: str, expires: int) -> None:
    _SET(client, [_key(part)], [int(time.time()), expires])


def _has_heartbeat(part: str) -> bool:
    with broker_client() as client:
        return is_alive(client, part)


def _register_worker(client: Any, hostname: str) -> None:
    _REGISTER(client, [_WORKERS], [hostname, EXPIRES])


def _key(part: str) -> str:
    return f"alive:{part}"
