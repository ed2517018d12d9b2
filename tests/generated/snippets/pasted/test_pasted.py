"""The page's snippets, on a real worker."""

import asyncio
import json
import os
from pathlib import Path

import asyncpg
import pytest
from celery import chain, chord, group
from celery.exceptions import TimeoutError as CeleryTimeoutError
from conftest import Program, celery, until
from fastapi.testclient import TestClient
from PIL import Image

from app.api.pasted import router
from app.core.celery import celery_app
from app.features.accounts.models import User
from app.main import create_app
from app.tasks.cleanup_task import cleanup_old_sessions
from app.tasks.data_processing_task import process_csv_file
from app.tasks.email_tasks import send_password_reset, send_verification_email
from app.tasks.image_task import generate_thumbnails, resize_image
from app.tasks.notification_task import send_bulk_notifications
from app.tasks.payment_task import process_payment
from app.tasks.practices import (
    background_task,
    long_running_task,
    reliable_task,
    update_user_status,
    urgent_task,
)
from app.tasks.process_task import process_task
from app.tasks.report_task import generate_monthly_report
from app.tasks.send_email_task import send_email_task
from app.tasks.user_stats_task import update_user_stats
from app.tasks.workflow_tasks import (
    process_data_task,
    process_file_task,
    send_notification_task,
    send_summary_task,
    validate_results_task,
)

FOLDER = Path(os.environ["PASTED_FOLDER"])


def test_purge():
    """Before the worker is there, so that something is left to purge."""
    send_email_task.delay("nobody@example.com", "never", "sent")
    assert "Purged 1 message" in celery("purge", "-f")


@pytest.fixture(scope="module")
def retried(worker):
    """Queued first: its 60 seconds pass while the others run."""
    return process_payment.delay(7, 12.5), reliable_task.delay("temporary")


@pytest.fixture(scope="module")
def client(worker):
    app = create_app()
    app.include_router(router)
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="module")
def user_id(client):
    answer = client.post("/register", json={"email": "ada@example.com", "password": "correct horse battery staple"})
    assert answer.status_code == 201, answer.text
    return answer.json()["user_id"]


def test_retry_is_under_way(retried):
    for result in retried:
        until(lambda result=result: result.state == "RETRY", "state RETRY")


def test_basic_task(worker, sink):
    result = send_email_task.delay("bob@example.com", "Hello", "How are you?")
    assert result.get(timeout=30) == {"status": "sent", "recipient": "bob@example.com"}
    mail = next(mail for mail in sink.mails if mail["To"] == "bob@example.com")
    assert mail["Subject"] == "Hello"
    assert "How are you?" in mail.get_body(("plain",)).get_content()


@pytest.mark.parametrize(
    ("task", "subject"), [(send_verification_email, "Verify Your Email"), (send_password_reset, "Reset Your Password")]
)
def test_email_tasks(worker, sink, task, subject):
    address = f"{task.__name__}@example.com"
    assert task.delay(address, "code-4711").get(timeout=30) is None
    mail = next(mail for mail in sink.mails if mail["To"] == address)
    assert mail["Subject"] == subject
    assert "code-4711" in mail.get_body(("plain",)).get_content()


def test_database_access_200_times(worker, user_id):
    results = [update_user_stats.delay(user_id) for _ in range(200)]
    states = [(result.get(timeout=180), result.state) for result in results]
    assert states == [(None, "SUCCESS")] * 200

    async def last_activity():
        connection = await asyncpg.connect(os.environ["DATABASE_URL"].replace("+asyncpg", ""))
        try:
            return await connection.fetchval(f"SELECT last_activity FROM {User.__tablename__} WHERE id = $1", user_id)
        finally:
            await connection.close()

    assert asyncio.run(last_activity()) is not None


def test_cleanup(worker, user_id):
    assert cleanup_old_sessions.delay().get(timeout=30) == {"deleted": 0}


def test_routes(client, sink):
    queued = client.post("/pasted/register", params={"email": "eve@example.com"}).json()
    assert queued["message"] == "Registration successful"
    status = f"/pasted/task/{queued['task_id']}"
    until(lambda: client.get(status).json()["status"] == "SUCCESS", "SUCCESS")
    assert client.get(status).json()["result"] == {"status": "sent", "recipient": "eve@example.com"}
    assert "eve@example.com" in [mail["To"] for mail in sink.mails]
    assert client.post("/pasted/process", json={"answer": 42}).json()["status"] == "completed"


def test_a_timeout_of_a_result_is_not_pythons(worker):
    """The page catches TimeoutError around `.get()`, which is not what Celery raises."""
    queued = process_task.apply_async(({},), countdown=60)
    with pytest.raises(CeleryTimeoutError):
        queued.get(timeout=0.1)
    queued.revoke()
    assert not issubclass(CeleryTimeoutError, TimeoutError)


def test_csv(worker):
    path = FOLDER / "rows.csv"
    path.write_text("name,value\na,1\nb,2\n")
    assert process_csv_file.delay(str(path)).get(timeout=30) == {
        "total_rows": 2,
        "processed": 2,
        "results": [{"name": "a", "double": 2}, {"name": "b", "double": 4}],
    }


def test_report(worker):
    result = generate_monthly_report.delay(2, 2026).get(timeout=30)
    assert result == {"filename": "report_2026_2.pdf", "status": "completed"}
    assert json.loads((FOLDER / "report_2026_2.pdf").read_text())["start"] == "2026-02-01T00:00:00"


def test_images(worker):
    path = FOLDER / "picture.png"
    Image.new("RGB", (640, 480), "red").save(path)
    output = resize_image.delay(str(path), 64, 48).get(timeout=30)["output_path"]
    assert Image.open(output).size == (64, 48)
    assert len(generate_thumbnails.delay(str(path)).get(timeout=30)) == 3


def test_notifications(worker):
    result = send_bulk_notifications.delay([1, 2, 3], "Hello", "there").get(timeout=30)
    assert result["queued"] == 3
    sent = [celery_app.AsyncResult(task_id).get(timeout=30) for task_id in result["task_ids"]]
    assert [one["user_id"] for one in sent] == [1, 2, 3]


def test_chain(worker):
    data = [1, 2, 3]
    # Execute tasks in sequence
    workflow = chain(
        process_data_task.s(data),
        validate_results_task.s(),
        send_notification_task.s()
    )
    result = workflow.apply_async()
    assert result.get(timeout=30) == "notified about 3"


def test_group(worker):
    file1, file2, file3 = "a", "bb", "ccc"
    # Execute tasks in parallel
    job = group(
        process_file_task.s(file1),
        process_file_task.s(file2),
        process_file_task.s(file3)
    )
    result = job.apply_async()
    assert result.get(timeout=30) == [1, 2, 3]


def test_chord(worker):
    file1, file2 = "a", "bb"
    # Execute tasks in parallel, then callback
    callback = send_summary_task.s()
    header = group(
        process_file_task.s(file1),
        process_file_task.s(file2)
    )
    result = chord(header)(callback)
    assert result.get(timeout=60) == 3


def test_options(worker):
    assert (long_running_task.time_limit, long_running_task.soft_time_limit) == (300, 270)
    assert (urgent_task.priority, background_task.priority) == (9, 1)
    conf = celery_app.conf
    assert (conf.worker_max_tasks_per_child, conf.worker_max_memory_per_child) == (100, 200000)
    for task in (long_running_task, urgent_task, background_task):
        result = task.delay()
        assert (result.get(timeout=30), result.state) == (None, "SUCCESS")


def test_idempotent_and_reliable(worker):
    for _ in range(2):
        update_user_status.delay(3, "active").get(timeout=30)
    assert (FOLDER / "status-3").read_text() == "active"
    assert reliable_task.delay("permanent").get(timeout=30) == {"status": "failed", "error": "will never work"}


def test_signals(worker):
    process_file_task.delay("x").get(timeout=30)
    worker.until("workflow_tasks.process_file_task took 0.0")


def test_inspect(worker):
    assert "OK" in celery("inspect", "ping")
    assert "OK" in celery("inspect", "active")
    registered = celery("inspect", "registered")
    for task in (
        "send_email_task",
        "send_verification_email",
        "app.tasks.payment_task.process_payment",
        "app.tasks.user_stats_task.update_user_stats",
    ):
        assert f"* {task}" in registered


def test_retry_succeeds(worker, retried):
    payment, reliable = retried
    assert payment.get(timeout=120) == {"order_id": 7, "amount": 12.5}
    assert reliable.get(timeout=120) is None
    attempts = (FOLDER / "order-7").read_text().splitlines()
    assert len(attempts) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("beat", "--loglevel=info"),
        ("worker", "--beat", "--loglevel=info"),
        ("worker", "--loglevel=info", "--concurrency=4", "--max-tasks-per-child=100"),
    ],
    ids=" ".join,
)
def test_long_running_commands(worker, arguments):
    program = Program(*arguments)
    try:
        program.until("tick" if "beat" in " ".join(arguments) else "ready")
    finally:
        program.stop()
