"""huey with its defaults."""

import os

from huey import RedisHuey

from benchmarks.peers import mark

huey = RedisHuey("bench", url=os.environ["CELERY_BROKER_URL"])


@huey.task()
def task(sent: float) -> None:
    """Mark the run."""
    mark.mark(sent)


def send(sent: float) -> None:
    """Publish one task."""
    task(sent)


def bulk(count: int) -> None:
    """Publish many tasks."""
    for _ in range(count):
        task(0.0)
