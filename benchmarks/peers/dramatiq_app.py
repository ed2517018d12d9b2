"""dramatiq with its defaults."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import mark

dramatiq.set_broker(RedisBroker(url=os.environ["CELERY_BROKER_URL"]))


@dramatiq.actor
def task(sent: float) -> None:
    """Mark the run."""
    mark.mark(sent)


def send(sent: float) -> None:
    """Publish one task."""
    task.send(sent)


def bulk(count: int) -> None:
    """Publish many tasks."""
    for _ in range(count):
        task.send(0.0)
