"""docs/worker-failures.md."""

import asyncio

from app.core.celery import celery_app
from app.worker.broker import broker_client
from app.worker.dead_letters import read
from app.worker.publish import enqueue
from tests.pages.hooks import Names, after, before, ended


@celery_app.task(name="payment.fail", dead_letter=True)
def fail() -> None:
    """Fail for good."""
    raise ValueError("no gateway")


@before("from app.worker.dead_letters import read")
async def a_task_has_failed_for_good(names: Names) -> None:
    assert (await ended((await enqueue(fail.s())).id)).status == "FAILURE"
    # The worker's main process stores the letter after the state.
    async with asyncio.timeout(30):
        while not _letters():
            await asyncio.sleep(0.05)


def _letters() -> int:
    with broker_client() as client:
        return len(read(client, 10))


@after("from app.worker.dead_letters import read")
async def the_message_is_a_new_task(names: Names) -> None:
    assert (await ended(names["new_id"])).status == "FAILURE"
