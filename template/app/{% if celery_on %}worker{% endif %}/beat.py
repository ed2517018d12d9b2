"""What every scheduler of beat does here: it sends a liveness heartbeat, and what it queues expires instead of piling up."""

import logging
import time
from typing import Any

from celery.beat import SchedulingError
from celery.utils.log import get_logger

from app.worker import liveness, schedule_health, summer_time
from app.worker.broker import OUTAGES

_logger = get_logger(__name__)


class HeartbeatScheduler:
    """Mixed into one of Celery's schedulers."""

    app: Any
    _last_heartbeat = float("-inf")

    def setup_schedule(self) -> None:
        """Set up the schedule, and warn of entries that will not run as one expects."""
        scheduler: Any = super()
        scheduler.setup_schedule()
        logging.getLogger("celery.beat").addFilter(self._is_worth_a_line)
        schedule_health.reset()
        for name in summer_time.skipping(self.app.conf.beat_schedule, self.app.timezone):
            _logger.warning(
                "the schedule's entry %r does not run in the hour that is repeated when summer time ends in %s: use seconds "
                "instead of crontab(), or CELERY_TIMEZONE=UTC",
                name,
                self.app.conf.timezone,
            )

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Queue what is due, send the heartbeat, and return the seconds to sleep."""
        scheduler: Any = super()
        delay: float = scheduler.tick(*args, **kwargs)
        self._send_heartbeat()
        return min(delay, liveness.INTERVAL)

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """Queue an entry's task. It expires when the next one is due, unless the entry has its own `expires`."""
        if "expires" not in entry.options:
            wait = entry.schedule.remaining_estimate(entry.default_now())
            if wait is not None:
                entry.options = {**entry.options, "expires": max(1.0, wait.total_seconds())}
        scheduler: Any = super()
        try:
            result = scheduler.apply_async(entry, *args, **kwargs)
        except SchedulingError as error:
            schedule_health.record_failure(entry.name, error.__cause__ or error)
            raise
        schedule_health.record_success(entry.name)
        return result

    def _is_worth_a_line(self, record: logging.LogRecord) -> bool:
        """Return whether a line of beat is logged: "Sending due task" only if the task's `log_level` is enabled."""
        if record.msg != "Scheduler: Sending due task %s (%s)" or not isinstance(record.args, tuple):
            return True
        level: int = getattr(self.app.tasks.get(record.args[1]), "log_level", logging.INFO)
        return level >= logging.getLogger().level

    def _send_heartbeat(self) -> None:
        now = time.monotonic()
        # A tick that queued something is followed by the next at once.
        if now - self._last_heartbeat < liveness.INTERVAL / 2:
            return
        self._last_heartbeat = now
        try:
            liveness.touch_probe_file("beat")
            liveness.send_heartbeat("beat")
        except OUTAGES as error:
            _logger.warning("beat's heartbeat failed: %r", error)
