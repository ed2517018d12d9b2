"""arq with its defaults."""

import asyncio
import os
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers import mark

_settings = RedisSettings.from_dsn(os.environ["CELERY_BROKER_URL"])
_pools: list[Any] = []


async def task(_context: dict[str, Any], sent: float) -> None:
    """Mark the run."""
    mark.mark(sent)


class WorkerSettings:
    """What `arq` reads."""

    functions = (task,)
    redis_settings = _settings


async def send(sent: float) -> None:
    """Publish one task."""
    if not _pools:
        _pools.append(await create_pool(_settings))
    await _pools[0].enqueue_job("task", sent)


async def bulk(count: int) -> None:
    """Publish many tasks, some at a time."""
    for start in range(0, count, 50):
        # The first one makes the pool.
        await send(0.0)
        await asyncio.gather(*(send(0.0) for _ in range(min(50, count - start) - 1)))
