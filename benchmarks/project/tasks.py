"""The measured tasks of the generated project; BENCHMARK_TASK names the one that is published."""

import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.celery import celery_app, with_db_init
from app.core.config.database import database_settings
from app.core.database import session_scope
from benchmarks.peers import celery_bulk
from benchmarks.peers.mark import mark

_WAIT = 0.1


@celery_app.task(name="bench.stored")
def stored(sent: float) -> None:
    """Mark the run; STARTED and the result are stored."""
    mark(sent)


@celery_app.task(name="bench.ignored", ignore_result=True)
def ignored(sent: float) -> None:
    """Mark the run."""
    mark(sent)


@celery_app.task(name="bench.select", ignore_result=True)
@with_db_init
async def select(sent: float) -> None:
    """Run one SELECT on the pool of the process's event loop."""
    async with session_scope() as db:
        await db.execute(text("SELECT 1"))
    mark(sent)


@celery_app.task(name="bench.select_alone", ignore_result=True)
def select_alone(sent: float) -> None:
    """Run one SELECT as most tutorials do: `asyncio.run` and a new engine in each task."""

    async def read() -> None:
        engine = create_async_engine(database_settings.url.get_secret_value())
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        await engine.dispose()

    asyncio.run(read())
    mark(sent)


@celery_app.task(name="bench.wait", ignore_result=True)
async def wait(sent: float) -> None:
    """Wait, as for an answer from the network."""
    await asyncio.sleep(_WAIT)
    mark(sent)


@celery_app.task(name="bench.wait_alone", ignore_result=True)
def wait_alone(sent: float) -> None:
    """Wait in an event loop of this task."""
    asyncio.run(asyncio.sleep(_WAIT))
    mark(sent)


_task = celery_app.tasks[f"bench.{os.environ.get('BENCHMARK_TASK', 'stored')}"]


def send(sent: float) -> None:
    """Publish one task."""
    _task.delay(sent)


def bulk(count: int) -> None:
    """Publish many tasks."""
    celery_bulk.publish(celery_app, _task, count)
