"""docs/workflows.md."""

from tests.pages.hooks import Names, after, ended


@after("import chain\n\nfrom app.tasks.workflows import process_data_task, send_notification_task")
async def the_chain_ends(names: Names) -> None:
    assert (await ended(names["result"].id)).result == {"listeners": 0}


@after("import group\n")
async def each_member_ends(names: Names) -> None:
    assert [(await ended(one.id)).result["values"] for one in names["result"].results] == [1, 1]


@after("import chord, group")
async def the_callback_gets_all_results(names: Names) -> None:
    assert (await ended(names["result"].id)).result == {"files": 2, "values": 2}


@after("on_error(")
async def the_chain_fails(names: Names) -> None:
    assert (await ended(names["result"].id)).status == "FAILURE"
