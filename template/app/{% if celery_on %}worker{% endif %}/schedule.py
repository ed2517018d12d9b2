"""beat's scheduler, which remembers in a file and in Redis what ran when; exactly one beat may run."""

from typing import Any

from celery.beat import PersistentScheduler

from app.worker import last_runs
from app.worker.beat import HonestScheduler


class Scheduler(HonestScheduler, PersistentScheduler):
    """Celery's own, with heartbeat and expiry, whose last runs outlive its file."""

    app: Any
    schedule: Any

    def setup_schedule(self) -> None:
        """Open the file, and take from Redis the runs that it does not know of."""
        super().setup_schedule()
        for name, when in last_runs.read(self.app, self.schedule).items():
            entry = self.schedule[name]
            # An entry that the file does not know has run "now".
            if entry.total_run_count == 0 or entry.last_run_at < when:
                entry.last_run_at = when

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """Queue an entry's task, and remember that."""
        result = super().apply_async(entry, *args, **kwargs)
        last_runs.store(self.app, entry.name, entry.default_now())
        return result
