"""Tasks as an application has them, for the test of the page."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Task

from app.core.celery import celery_app
from app.worker.task_progress import progress

FLAGS = Path(__file__).parent / "page_flags"
"""Files in it let a task continue."""


def _until(name: str, seconds: float = 120) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if (FLAGS / name).exists():
            return
        pause.wait(0.05)


@celery_app.task(name="report.render")
def render(month: int, pages: int) -> int:
    """Render some pages, each after a message of the test."""
    for page in range(pages):
        progress(page, pages, f"page {page + 1}")
        _until(f"page-{page}")
    return pages


@celery_app.task(name="image.resize", queue_name="long")
def resize(name: str) -> None:
    """Run until it is cancelled, or the test has ended."""
    progress(3, 8, f"resizing {name}")
    _until("end")


@celery_app.task(name="invoice.send", dead_letter=True)
def send(number: int, to: str) -> str:
    """Fail until the printer is mended."""
    if not (FLAGS / "mended").exists():
        raise TimeoutError("the mail server at smtp.example.com:587 does not answer within 10 s")
    return f"{number} sent to {to}"


@celery_app.task(name="import.row")
def row(number: int) -> int:
    """Import a row."""
    if number == 7:
        raise ValueError(f"row {number}: <b>amount</b> is not a number: '12,5o'")
    return number


@celery_app.task(name="import.file", bind=True)
def file(self: "Task[Any, Any]", name: str, rows: int) -> int:
    """Queue a task for each row."""
    queue: Callable[[int], object] = row.delay
    for number in range(rows):
        queue(number)
        progress(number + 1, rows, "rows queued")
    return rows
