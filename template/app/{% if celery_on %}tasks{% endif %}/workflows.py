"""Examples of a chain, a group and a chord, with error handling.

`await enqueue(process_validate_and_notify({"a": 1}))`; docs/workflows.md describes what happens when a member fails.
"""

import json
from typing import Any

from celery import chain, chord, group
from celery.canvas import Signature

from app.core.celery import celery_app
from app.core.redis import cache
from app.tasks.process_task import summarise

CHANNEL = "workflows"
"""The Redis Pub/Sub channel, with the prefix `REDIS_KEY_PREFIX`, for the events of workflows. Events are not stored."""

MAX_FILES = 100
LARGEST_FILE = 65536
"""Maximum characters of a file, which is sent in the message. Put larger files into the storage."""


def process_validate_and_notify(data: dict[str, Any]) -> Signature[Any]:
    """Return a chain: each step gets the result of the one before; after a failed step, no other runs."""
    steps = chain(process_data_task.s(data), validate_results_task.s(), send_notification_task.s())
    # Called for whichever step fails.
    return steps.on_error(report_failure_task.s())


def process_files(files: list[str]) -> Signature[Any]:
    """Return a group: one task per file, in parallel. A failed task does not affect the others."""
    return group(process_file_task.s(file).on_error(report_failure_task.s()) for file in _bounded(files))


def process_files_and_summarise(files: list[str]) -> Signature[Any]:
    """Return a chord: a group with one task per file, then a task with all results if none failed."""
    callback = send_summary_task.s().on_error(report_failure_task.s())
    return chord(group(process_file_task.s(file) for file in _bounded(files)), callback)


@celery_app.task(name="process_data_task")
def process_data_task(data: dict[str, Any]) -> dict[str, Any]:
    """Return how many values of each JSON type `data` holds and how deep it is nested."""
    return summarise(data)


@celery_app.task(name="validate_results_task")
def validate_results_task(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results if they are not empty.

    Raises:
        ValueError: the data had no values.
    """
    if not results["values"]:
        raise ValueError("the data has no values")
    return results


@celery_app.task(name="send_notification_task")
def send_notification_task(results: dict[str, Any]) -> dict[str, Any]:
    """Publish an event with the results; return how many clients received it."""
    return {"listeners": _publish({"processed": results})}


@celery_app.task(name="process_file_task")
def process_file_task(file: str) -> dict[str, Any]:
    """Return the summary of a file with a JSON object.

    Raises:
        ValueError: the file is too large or not a JSON object.
    """
    if len(file) > LARGEST_FILE:
        raise ValueError(f"the file has {len(file)} characters; the maximum is {LARGEST_FILE}")
    try:
        data = json.loads(file)
    except ValueError as error:
        # Celery cannot restore a JSONDecodeError from the result store.
        raise ValueError(f"the file is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"the file must be a JSON object, not a {type(data).__name__}")
    return summarise(data)


@celery_app.task(name="send_summary_task")
def send_summary_task(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the summaries of all files, publish an event with the total and return it."""
    total = {"files": len(summaries), "values": sum(summary["values"] for summary in summaries)}
    _publish({"summary": total})
    return total


@celery_app.task(name="report_failure_task", ignore_result=True)
def report_failure_task(request: Any, error: BaseException, _traceback: object) -> None:
    """Publish an event with the failed task and its error.

    Celery calls an errback with three parameters in the process where the task failed. An errback with one parameter
    would be queued with the id of the failed task, whose state may not be stored yet.
    """
    _publish({"failed": request.id, "error": {"type": type(error).__name__, "message": str(error)[:500]}})


def _publish(event: dict[str, Any]) -> int:
    return int(cache.sync.client.publish(cache.sync.key(CHANNEL), json.dumps(event)))


def _bounded(files: list[str]) -> list[str]:
    if not 1 <= len(files) <= MAX_FILES:
        raise ValueError(f"{len(files)} files were given; the number must be 1 to {MAX_FILES}")
    return files
