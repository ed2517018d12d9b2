"""docs/flow-control.md."""

from app.worker.publish import enqueue
from tests.pages.hooks import Names, after, ended


@after("import Duplicate")
async def the_task_runs(names: Names) -> None:
    assert (await ended(names["result"].id)).result == "report 7 of acme"


@after("def add_currency")
async def older_arguments_are_completed(names: Names) -> None:
    assert names["add_currency"]([7], {}) == ([7], {"currency": "EUR"})
    assert (await ended((await enqueue(names["pay"].s(7, "EUR"))).id)).status == "SUCCESS"
