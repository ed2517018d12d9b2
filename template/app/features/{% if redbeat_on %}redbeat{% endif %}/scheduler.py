"""A beat scheduler that stores the last runs in Redis. Of several beats, only the one with the lock sends tasks."""

import time
from typing import Any

from celery.utils.log import get_logger
from redbeat.schedulers import RedBeatScheduler, get_redis
from redis.exceptions import LockError, RedisError

from app.core.config import require_safe_settings
from app.core.config.celery import celery_settings
from app.core.config.redis_url import for_redis_py
from app.core.logging import error_repr
from app.features.redbeat.config import redbeat_settings
from app.worker.beat import HeartbeatScheduler

RESTORE_EVERY = 5.0
"""Seconds between two checks for missing entries."""

_logger = get_logger(__name__)


class LockedScheduler(RedBeatScheduler):
    """redbeat's scheduler with a different way to lock.

    redbeat waits for its lock before its loop starts, when it writes no heartbeat, and exits when it loses the lock.
    """

    def __init__(self, app: Any, **kwargs: Any) -> None:
        # redbeat connects in its constructor, before Celery sends the signal `beat_init`.
        require_safe_settings()
        app.conf.update(
            redbeat_redis_url=for_redis_py(celery_settings.broker_url.get_secret_value()),
            redbeat_redis_options={"socket_timeout": 5, "socket_connect_timeout": 5, "socket_keepalive": True},
            # None disables redbeat's lock.
            redbeat_lock_key=None,
            beat_max_loop_interval=redbeat_settings.loop_interval,
        )
        super().__init__(app, **kwargs)
        self._leads = False
        self._restored = float("-inf")
        # The key of redbeat's lock, so that it also excludes a beat that runs redbeat's own scheduler.
        self._own_lock = get_redis(app).lock("redbeat::lock", timeout=redbeat_settings.lock_timeout, thread_local=False)

    def tick(self, **kwargs: Any) -> float:
        """Send the due tasks if this beat has the lock; return the seconds to sleep."""
        try:
            if not self._hold():
                return float(self.max_interval)
            self._restore()
            return float(super().tick(**kwargs))
        except RedisError as error:
            # Tasks that were not sent are still due at the next tick.
            _logger.warning("Redis is unreachable, retrying: %s", error_repr(error))
            return float(self.max_interval)

    def close(self) -> None:
        """Release the lock, so that another beat takes over immediately."""
        if self._leads:
            self._leads = False
            try:
                self._own_lock.release()
            except RedisError as error:
                _logger.warning("The lock was not released and will expire: %s", error_repr(error))
        super().close()

    def _restore(self) -> None:
        """Write entries that are missing in Redis again. redbeat does so only when it starts."""
        now = time.monotonic()
        if now - self._restored < RESTORE_EVERY:
            return
        self._restored = now
        conf = self.app.redbeat_conf
        keys = {name: self.Entry.generate_key(self.app, name) for name in conf.schedule}
        if not keys:
            return
        client = get_redis(self.app)
        with client.pipeline(transaction=False) as pipe:
            for key in keys.values():
                pipe.hexists(key, "definition")
                pipe.zscore(conf.schedule_key, key)
            found = pipe.execute()
        for (name, key), is_defined, score in zip(keys.items(), found[::2], found[1::2], strict=True):
            if is_defined and score is not None:
                continue
            _logger.warning("The schedule entry %r was missing in Redis and is written again", name)
            if is_defined:
                # Keep its definition in Redis: it may have been disabled there.
                self.Entry.from_key(key, app=self.app).save()
            else:
                self.update_from_dict({name: conf.schedule[name]})
        client.sadd(conf.statics_key, *keys)

    def _hold(self) -> bool:
        if self._leads:
            try:
                self._own_lock.reacquire()
            except LockError:
                _logger.warning("This beat has lost the lock")
                self._leads = False
        if not self._leads and self._own_lock.acquire(blocking=False):
            self._leads = True
            _logger.info("This beat has the lock and sends the scheduled tasks")
        return self._leads


class Scheduler(HeartbeatScheduler, LockedScheduler):
    """redbeat's scheduler with heartbeat and expiry."""

    def leads(self) -> bool:
        """Return whether this beat has the lock."""
        return self._leads

    def all_entries(self) -> list[Any]:
        """Return all entries that are in Redis."""
        keys = get_redis(self.app).zrange(self.app.redbeat_conf.schedule_key, 0, -1)
        return [entry for key in keys if (entry := self._load(key)) is not None]

    def find_entry(self, name: str) -> Any:
        """Return an entry that is in Redis, or None if there is none of that name."""
        return self._load(self.Entry.generate_key(self.app, name))

    def _load(self, key: str) -> Any:
        try:
            return self.Entry.from_key(key, app=self.app)
        except KeyError:
            return None
