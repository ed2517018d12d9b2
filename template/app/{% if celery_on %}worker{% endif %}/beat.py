"""What every scheduler of beat does here: it says that it lives, and what it queues expires rather than piles up."""

import logging
import time
from typing import Any

from celery.beat import SchedulingError
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.worker import liveness, schedule_health, summer_time

_logger = get_logger(__name__)


class HonestScheduler:
    """Mixed into a scheduler of Celery's."""

    app: Any
    _said = float("-inf")

    def setup_schedule(self) -> None:
        """Set the schedule up, and warn of what it will not do."""
        scheduler: Any = super()
        scheduler.setup_schedule()
        logging.getLogger("celery.beat").addFilter(self._is_worth_a_line)
        schedule_health.reset(self.app)
        for name in summer_time.skipping(self.app.conf.beat_schedule, self.app.timezone):
            _logger.warning(
                "the schedule's entry %r does not run in the hour that comes twice when summer time ends in %s: use seconds in "
                "place of crontab(), or CELERY_TIMEZONE=UTC",
                name,
                self.app.conf.timezone,
            )

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Queue what is due, say that beat lives, and return the seconds to sleep."""
        scheduler: Any = super()
        delay: float = scheduler.tick(*args, **kwargs)
        self._say_alive()
        return min(delay, liveness.EVERY)

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """Queue an entry's task. One that no worker took before the next is due is dropped, unless the entry has an
        `expires` of its own.
        """
        if "expires" not in entry.options:
            wait = entry.schedule.remaining_estimate(entry.default_now())
            if wait is not None:
                entry.options = {**entry.options, "expires": max(1.0, wait.total_seconds())}
        scheduler: Any = super()
        try:
            result = scheduler.apply_async(entry, *args, **kwargs)
        except SchedulingError as error:
            schedule_health.failed(self.app, entry.name, error.__cause__ or error)
            raise
        schedule_health.queued(self.app, entry.name)
        return result

    def _is_worth_a_line(self, record: logging.LogRecord) -> bool:
        """Return whether the log takes beat's line: not "Sending due task" of one that logs at a level that is off."""
        if record.msg != "Scheduler: Sending due task %s (%s)" or not isinstance(record.args, tuple):
            return True
        level: int = getattr(self.app.tasks.get(record.args[1]), "log_level", logging.INFO)
        return level >= logging.getLogger().level

    def _say_alive(self) -> None:
        now = time.monotonic()
        # A tick that queued something is followed by the next at once.
        if now - self._said < liveness.EVERY / 2:
            return
        self._said = now
        try:
            liveness.touch("beat")
            liveness.say_through_pool(self.app, "beat")
        except (RedisError, OperationalError, OSError) as error:
            _logger.warning("beat's heartbeat missed: %r", error)
