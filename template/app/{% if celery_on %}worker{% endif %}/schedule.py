"""The scheduler of one beat, which stores in a file and in Redis when each entry last ran; exactly one beat may run."""

from typing import Any

from celery.beat import PersistentScheduler

from app.worker import last_runs
from app.worker.beat import HeartbeatScheduler


class Scheduler(HeartbeatScheduler, PersistentScheduler):
    """Celery's own, with heartbeat and expiry, whose last runs survive the loss of its file."""

    app: Any
    schedule: Any

    def setup_schedule(self) -> None:
        """Open the file, and take from Redis the runs that are missing in it."""
        super().setup_schedule()
        for name, when in last_runs.read(self.schedule).items():
            entry = self.schedule[name]
            # An entry that is not in the file gets "now" as its last run.
            if entry.total_run_count == 0 or entry.last_run_at < when:
                entry.last_run_at = when

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """Queue an entry's task, unless it is paused, and store when."""
        result = super().apply_async(entry, *args, **kwargs)
        if result is not None:
            last_runs.store(entry.name, entry.default_now())
        return result
