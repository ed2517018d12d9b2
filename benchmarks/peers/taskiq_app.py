"""taskiq on a Redis list, with results if BENCHMARK_TASK is `stored`."""

import asyncio
import os
from typing import Any

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.peers import mark

broker: Any = ListQueueBroker(os.environ["CELERY_BROKER_URL"])
if os.environ.get("BENCHMARK_TASK") == "stored":
    # Without an expiry the results would stay for ever.
    results: Any = RedisAsyncResultBackend(os.environ["CELERY_RESULT_BACKEND"], result_ex_time=3600)
    broker = broker.with_result_backend(results)


@broker.task(task_name="bench.mark")
async def task(sent: float) -> None:
    """Mark the run."""
    mark.mark(sent)


async def send(sent: float) -> None:
    """Publish one task."""
    await task.kiq(sent)


async def bulk(count: int) -> None:
    """Publish many tasks, some at a time."""
    await broker.startup()
    for start in range(0, count, 100):
        await asyncio.gather(*(task.kiq(0.0) for _ in range(min(100, count - start))))
    await broker.shutdown()
