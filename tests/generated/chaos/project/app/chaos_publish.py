"""Queue tasks as the API does, and print the number of each once Redis has it: `python -m app.chaos_publish FROM TO`."""

import asyncio
import sys

from app.tasks.chaos_tasks import idempotent, plain
from app.worker.publish import enqueue


async def publish(first: int, end: int) -> None:
    """Queue the tasks `first` to `end - 1`, each kind in turn."""
    for number in range(first, end):
        task = idempotent if number % 2 else plain
        await enqueue(task.s(number).set(task_id=f"chaos-{number}"))
        print(number, flush=True)


asyncio.run(publish(int(sys.argv[1]), int(sys.argv[2])))
