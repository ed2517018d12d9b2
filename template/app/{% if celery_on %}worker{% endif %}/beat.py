"""What every scheduler of beat does here: it sends a liveness heartbeat, what it queues expires instead of piling up, and it does what
operators ask of its entries (`schedule_control`).
"""

import logging
import time
from collections.abc import Iterable
from typing import Any

from celery.beat import SchedulingError
from celery.utils.log import get_logger

from app.core.logging import error_repr
from app.worker import liveness, schedule_control, schedule_health, summer_time
from app.worker.broker import OUTAGES
from app.worker.schedule_control import Description

_logger = get_logger(__name__)


class HeartbeatScheduler:
    """Mixed into one of Celery's schedulers."""

    app: Any
    _last_heartbeat = float("-inf")
    _served_at = float("-inf")

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
        self._serve_operators()
        return min(delay, liveness.INTERVAL)

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Queue an entry's task, unless the entry is paused: then the next one is due as if it had run.

        The task expires when the next one is due, unless the entry has its own `expires`.
        """
        if schedule_control.is_paused(entry.name):
            _logger.info("the schedule's entry %r is paused", entry.name)
            if advance:
                scheduler: Any = self
                scheduler.reserve(entry)
            return None
        return self._queue(entry, producer, advance=advance, **kwargs)

    def leads(self) -> bool:
        """Return whether this beat queues the tasks: of several of redbeat's, only one does."""
        return True

    def all_entries(self) -> Iterable[Any]:
        """Return all entries of the schedule."""
        scheduler: Any = self
        return list(scheduler.schedule.values())

    def find_entry(self, name: str) -> Any:
        """Return an entry, or None if there is none of that name."""
        scheduler: Any = self
        return scheduler.schedule.get(name)

    def _queue(self, entry: Any, producer: Any, *, advance: bool, **kwargs: Any) -> Any:
        if "expires" not in entry.options:
            wait = entry.schedule.remaining_estimate(entry.default_now())
            if wait is not None:
                entry.options = {**entry.options, "expires": max(1.0, wait.total_seconds())}
        scheduler: Any = super()
        try:
            result = scheduler.apply_async(entry, producer=producer, advance=advance, **kwargs)
        except SchedulingError as error:
            schedule_health.record_failure(entry.name, _cause(error))
            raise
        schedule_health.record_success(entry.name)
        task_id = getattr(result, "id", None)
        if task_id:
            schedule_control.record_run(entry.name, task_id)
        return result

    def _serve_operators(self) -> None:
        """Store the entries, and run those that operators have asked for."""
        now = time.monotonic()
        if not self.leads() or now - self._served_at < liveness.INTERVAL / 2:
            return
        self._served_at = now
        try:
            schedule_control.store({entry.name: self._describe(entry) for entry in self.all_entries()})
            for name, request in schedule_control.requests().items():
                self._run_now(name, request)
        except OUTAGES as error:
            _logger.warning("the schedule's entries are not stored, or not run as asked for: %s", error_repr(error))

    def _run_now(self, name: str, request: str) -> None:
        entry = self.find_entry(name)
        if entry is None:
            _logger.warning("the schedule has no entry %r to run", name)
        else:
            # With an id that is known already: if this beat dies now, another one queues the same task.
            scheduler: Any = self
            options = {**entry.options, "task_id": schedule_control.requested_id(request)}
            try:
                # A copy: the scheduler may store the entry itself at any time.
                self._queue(type(entry)(**dict(entry, options=options)), scheduler.producer, advance=False)
            except SchedulingError as error:
                if isinstance(_cause(error), OUTAGES):
                    raise _cause(error) from error
                _logger.error("the schedule's entry %r cannot be run: %s", name, error_repr(error))
        schedule_control.done(name, request)

    def _describe(self, entry: Any) -> Description:
        try:
            wait = entry.schedule.remaining_estimate(entry.last_run_at) if entry.last_run_at else None
        except Exception:  # noqa: BLE001 - a schedule of the project's own; beat logs it when it looks whether the entry is due
            wait = None
        next_run = round(time.time() + max(0.0, wait.total_seconds())) if wait is not None else None
        enabled = getattr(entry, "enabled", True)
        return Description(entry.task, str(entry.schedule).strip("<>"), next_run, enabled=bool(enabled))

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
            _logger.warning("beat's heartbeat failed: %s", error_repr(error))


def _cause(error: BaseException) -> BaseException:
    # Celery raises its own error while it handles the cause, not from it.
    return error.__cause__ or error.__context__ or error
