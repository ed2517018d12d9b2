"""docs/celery.md."""

from app.core.celery import celery_app
from app.worker.publish import enqueue
from tests.pages.hooks import Names, after, before, client_of, ended

code = "K7XW-2MQ4"
owner = "user-1"
user_id = 1


@celery_app.task(name="page.fail")
def fail() -> None:
    """Fail."""
    raise ValueError("no document")


@after('"/summaries"')
async def the_route_queues(names: Names) -> None:
    async with client_of(names["router"]) as client:
        answer = await client.post("/summaries", json=[1, 2])
    assert (await ended(answer.json()["task_id"])).status == "SUCCESS"


@after('"/documents/{number}/summary"')
async def the_route_wants_a_login(names: Names) -> None:
    async with client_of(names["router"]) as client:
        assert (await client.post("/documents/7/summary")).status_code == 401


@after("async def result_of")
async def results_come_back(names: Names) -> None:
    (task_id,) = await names["queue_many"]([{"number": 7}])
    assert (await names["result_of"](task_id))["values"] == 1
    await names["show"](task_id)


@after("async def stop")
async def a_waiting_task_is_revoked(names: Names) -> None:
    assert await names["stop"](await names["queue_one"]()) == "REVOKED"
    assert await names["stop"]("no such task") == "unknown"


@after("async def run_again")
async def a_failed_task_runs_again_as_a_new_one(names: Names) -> None:
    task_id = (await enqueue(fail.s())).id
    assert (await ended(task_id)).status == "FAILURE"
    assert (await ended(await names["run_again"](task_id))).task_id != task_id


@before("enqueue(backup_database.s())")
async def the_tasks_are_imported(names: Names) -> Names:
    from app.tasks import (
        backup_task,
        cleanup_task,
        data_processing_task,
        email_tasks,
        image_task,
        notification_task,
        report_task,
    )

    modules = (
        *(backup_task, cleanup_task, data_processing_task, email_tasks),
        *(image_task, notification_task, report_task),
    )
    return {name: value for module in modules for name, value in vars(module).items() if not name.startswith("_")}
