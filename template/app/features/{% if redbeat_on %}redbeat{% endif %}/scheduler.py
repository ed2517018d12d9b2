"""beat's scheduler, which remembers in Redis what ran when: of several beats the one that holds the lock fires."""

import time
from typing import Any

from celery.utils.log import get_logger
from redbeat.schedulers import RedBeatScheduler, get_redis
from redis.exceptions import LockError, RedisError

from app.core.config import require_safe_settings
from app.core.config.celery import celery_settings
from app.core.config.redis_url import for_redis_py
from app.features.redbeat.config import redbeat_settings
from app.worker.beat import HeartbeatScheduler

RESTORE_EVERY = 5.0
"""Seconds between two looks for entries that have vanished."""

_logger = get_logger(__name__)


class OneOfSeveral(RedBeatScheduler):
    """redbeat's scheduler with a lock of its own.

    redbeat waits for its lock before its loop starts, where nobody sees that it lives, and exits when it loses it.
    """

    def __init__(self, app: Any, **kwargs: Any) -> None:
        # redbeat connects already here, before Celery says that beat begins.
        require_safe_settings()
        app.conf.update(
            redbeat_redis_url=for_redis_py(celery_settings.broker_url.get_secret_value()),
            redbeat_redis_options={"socket_timeout": 5, "socket_connect_timeout": 5, "socket_keepalive": True},
            # None is redbeat's way not to lock.
            redbeat_lock_key=None,
            beat_max_loop_interval=redbeat_settings.loop_interval,
        )
        super().__init__(app, **kwargs)
        self._leads = False
        self._restored = float("-inf")
        # redbeat's own key, so that a beat started with redbeat's own scheduler is shut out too.
        self._own_lock = get_redis(app).lock("redbeat::lock", timeout=redbeat_settings.lock_timeout, thread_local=False)

    def tick(self, **kwargs: Any) -> float:
        """Queue what is due if this is the beat that fires, and return the seconds to sleep."""
        try:
            if not self._hold():
                return float(self.max_interval)
            self._restore()
            return float(super().tick(**kwargs))
        except RedisError as error:
            # What was not queued is still due at the next tick.
            _logger.warning("Redis does not answer, trying again: %r", error)
            return float(self.max_interval)

    def close(self) -> None:
        """Let another beat fire at once."""
        if self._leads:
            self._leads = False
            try:
                self._own_lock.release()
            except RedisError as error:
                _logger.warning("the lock is not released, it expires: %r", error)
        super().close()

    def _restore(self) -> None:
        """Write the entries of the code that have vanished from Redis again: redbeat does so when it starts, and never after."""
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
            _logger.warning("the schedule's entry %r had vanished from Redis and is written again", name)
            if is_defined:
                # As it is there: it may have been switched off.
                self.Entry.from_key(key, app=self.app).save()
            else:
                self.update_from_dict({name: conf.schedule[name]})
        client.sadd(conf.statics_key, *keys)

    def _hold(self) -> bool:
        if self._leads:
            try:
                self._own_lock.reacquire()
            except LockError:
                _logger.warning("this beat has lost the lock")
                self._leads = False
        if not self._leads and self._own_lock.acquire(blocking=False):
            self._leads = True
            _logger.info("this beat holds the lock and fires")
        return self._leads


class Scheduler(HeartbeatScheduler, OneOfSeveral):
    """redbeat's, with heartbeat and expiry."""
