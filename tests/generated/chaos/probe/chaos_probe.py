"""Tasks whose runs are counted in a file, and a publisher: `python -m chaos_probe`, with "FIRST END" as lines of its input."""

import asyncio
import os
import struct
import sys
from typing import Any

from app.core.celery import celery_app
from app.worker.publish import enqueue_many
from app.worker.task_progress import progress

_AT_ONCE = 500

_marks = os.open(os.environ["CHAOS_MARKS"], os.O_WRONLY | os.O_APPEND)
_worker = int(os.environ.get("CHAOS_WORKER", "0"))


def _mark(number: int) -> None:
    # One write of a few bytes at the end of a file: nothing of another process gets in between, and a kill leaves it whole.
    os.write(_marks, struct.pack("<II", number, _worker))


@celery_app.task(name="chaos.ignored", ignore_result=True)
def ignored(number: int) -> None:
    """Count a run."""
    _mark(number)


@celery_app.task(name="chaos.stored")
def stored(number: int) -> None:
    """Count a run, and have a result."""
    _mark(number)


@celery_app.task(name="chaos.submitted", bind=True, submit=True, max_retries=1)
def submitted(self: Any, number: int) -> None:
    """Count a run, and end as the number says: see `tests.generated.chaos.records.expected`."""
    _mark(number)
    if number % 10 == 1:
        progress(1, 2, "half")
    if number % 10 == 2 and not self.request.retries:
        raise self.retry(countdown=0)
    if number % 10 == 3:
        raise ValueError("as expected")


async def _publish(first: int, end: int) -> None:
    for start in range(first, end, _AT_ONCE):
        numbers = range(start, min(end, start + _AT_ONCE))
        await enqueue_many([(stored if number % 4 == 0 else ignored).s(number) for number in numbers])


async def _serve() -> None:
    for line in sys.stdin:
        first, end = map(int, line.split())
        await _publish(first, end)
        print(f"published {end}", flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
