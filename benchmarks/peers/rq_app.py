"""rq with its defaults."""

import os

from redis import Redis
from rq import Queue

from benchmarks.peers import mark

_queue = Queue(connection=Redis.from_url(os.environ["CELERY_BROKER_URL"]))


def send(sent: float) -> None:
    """Publish one task."""
    _queue.enqueue(mark.mark, sent)


def bulk(count: int) -> None:
    """Publish many tasks."""
    for start in range(0, count, 500):
        _queue.enqueue_many([Queue.prepare_data(mark.mark, (0.0,)) for _ in range(min(500, count - start))])
