"""beat's scheduler, which remembers in a file what ran when; exactly one beat may run."""

from celery.beat import PersistentScheduler

from app.worker.beat import HonestScheduler


class Scheduler(HonestScheduler, PersistentScheduler):
    """Celery's own, with heartbeat and expiry."""
