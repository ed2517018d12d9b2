"""Celery with its defaults: nothing is set but the addresses of the broker and of the results."""

import os

from celery import Celery

from benchmarks.peers import celery_bulk, mark

app = Celery("bench", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])


@app.task(name="bench.mark")
def task(sent: float) -> None:
    """Mark the run."""
    mark.mark(sent)


def send(sent: float) -> None:
    """Publish one task."""
    task.delay(sent)


def bulk(count: int) -> None:
    """Publish many tasks."""
    celery_bulk.publish(app, task, count)
