"""docs/celery.md."""

from app.core.celery import celery_app
from app.worker.publish import enqueue
from tests.pages.hooks import Names, after, before, client_of, ended

invoice_id = 7
invoice_ids = [1, 2, 3]
user_id = 1
owner = "user-1"
code = "K7XW-2MQ4"


@celery_app.task(name="invoice.render")
def render_invoice(invoice_id: int) -> str:
    """Render an invoice."""
    return f"invoice-{invoice_id}.pdf"


@celery_app.task(name="invoice.fail")
def fail() -> None:
    """Fail."""
    raise ValueError("no invoice")


@after('"/summaries"')
async def the_route_queues(names: Names) -> None:
    async with client_of(names["router"]) as client:
        answer = await client.post("/summaries", json=[1, 2])
    assert (await ended(answer.json()["task_id"])).status == "SUCCESS"


@after("enqueue_many([")
async def all_are_queued(names: Names) -> None:
    assert [(await ended(one.id)).result for one in names["results"]] == [f"invoice-{n}.pdf" for n in invoice_ids]


@before("status_of(task_id)")
async def a_task_has_ended(names: Names) -> Names:
    task_id = (await enqueue(render_invoice.s(8))).id
    await ended(task_id)
    return {"task_id": task_id}


@after("wait_for(result.id")
async def it_has_ended(names: Names) -> None:
    assert names["status"].result == "invoice-7.pdf"


@before("cancel(task_id)")
async def a_task_waits(names: Names) -> Names:
    return {"task_id": (await enqueue(render_invoice.s(9).set(countdown=600))).id}


@after("cancel(task_id)")
async def it_is_revoked(names: Names) -> None:
    assert names["status"].status == "REVOKED"


@before("retry(task_id)")
async def a_task_has_failed(names: Names) -> Names:
    task_id = (await enqueue(fail.s())).id
    assert (await ended(task_id)).status == "FAILURE"
    return {"task_id": task_id}


@after("retry(task_id)")
async def it_is_a_new_task(names: Names) -> None:
    assert names["result"].id != names["task_id"]


@before("enqueue(backup_database.s())")
async def the_tasks_are_imported(names: Names) -> Names:
    from app.tasks.backup_task import backup_database
    from app.tasks.cleanup_task import cleanup_old_sessions
    from app.tasks.data_processing_task import process_csv_file
    from app.tasks.email_tasks import send_verification_email
    from app.tasks.image_task import generate_thumbnails, resize_image
    from app.tasks.notification_task import send_bulk_notifications, send_push_notification
    from app.tasks.report_task import generate_monthly_report

    return {
        "backup_database": backup_database,
        "cleanup_old_sessions": cleanup_old_sessions,
        "generate_monthly_report": generate_monthly_report,
        "generate_thumbnails": generate_thumbnails,
        "process_csv_file": process_csv_file,
        "resize_image": resize_image,
        "send_bulk_notifications": send_bulk_notifications,
        "send_push_notification": send_push_notification,
        "send_verification_email": send_verification_email,
    }
