"""Bulk publishing for every Celery application."""

from typing import Any


def publish(app: Any, task: Any, count: int) -> None:
    """Publish `count` tasks through one producer, in batches."""
    with app.producer_pool.acquire(block=True) as producer, producer.batch():
        for _ in range(count):
            task.apply_async((0.0,), producer=producer)
