"""docs/task-api.md."""

from app.worker.publish import enqueue
from tests.pages.hooks import Names, after, ended


@after("async def wait_until_done")
async def it_returns_when_the_task_has_ended(names: Names) -> None:
    task = await enqueue(names["render"].s(11, year=2026))
    await names["wait_until_done"](task.id)
    assert (await ended(task.id)).result == "report_2026_11_A4.pdf"
