"""A chain, a group and a chord, to start from, and what happens when one of their members fails.

`await enqueue(process_validate_and_notify({"a": 1}))`; docs/workflows.md describes the results of each.
"""

import json
from typing import Any

from celery import chain, chord, group
from celery.canvas import Signature

from app.core.celery import celery_app
from app.core.redis import cache
from app.tasks.process_task import summarise

CHANNEL = "workflows"
"""The Redis channel, after `REDIS_KEY_PREFIX`, in which workflows tell their end; who does not listen then misses it."""

MAX_FILES = 100
LARGEST_FILE = 65536
"""Characters of a file; a message carries them. Larger ones belong into a storage, and their names into messages."""


def process_validate_and_notify(data: dict[str, Any]) -> Signature[Any]:
    """Return a chain: each step gets what the one before it returned, and none runs after one that failed."""
    steps = chain(process_data_task.s(data), validate_results_task.s(), send_notification_task.s())
    # Of whichever step fails.
    return steps.on_error(report_failure_task.s())


def process_files(files: list[str]) -> Signature[Any]:
    """Return a group: one task for each file, side by side; one that fails leaves the others alone."""
    return group(process_file_task.s(file).on_error(report_failure_task.s()) for file in _bounded(files))


def process_files_and_summarise(files: list[str]) -> Signature[Any]:
    """Return a chord: the group of the files, then one task with all of their results, if none failed."""
    callback = send_summary_task.s().on_error(report_failure_task.s())
    return chord(group(process_file_task.s(file) for file in _bounded(files)), callback)


@celery_app.task(name="process_data_task")
def process_data_task(data: dict[str, Any]) -> dict[str, Any]:
    """Return how many values of each JSON type `data` holds and how deep it is nested."""
    return summarise(data)


@celery_app.task(name="validate_results_task")
def validate_results_task(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results if they are of use.

    Raises:
        ValueError: the data held no value.
    """
    if not results["values"]:
        raise ValueError("the data holds no value")
    return results


@celery_app.task(name="send_notification_task")
def send_notification_task(results: dict[str, Any]) -> dict[str, Any]:
    """Tell everybody who listens that the data is processed, and return how many that were."""
    return {"listeners": _tell({"processed": results})}


@celery_app.task(name="process_file_task")
def process_file_task(file: str) -> dict[str, Any]:
    """Return the summary of a JSON object, given as the text of a file.

    Raises:
        ValueError: it is too large, or no JSON object.
    """
    if len(file) > LARGEST_FILE:
        raise ValueError(f"a file may have {LARGEST_FILE} characters, not {len(file)}")
    try:
        data = json.loads(file)
    except ValueError as error:
        # JSONDecodeError itself does not survive the way through Redis.
        raise ValueError(f"the file is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"the file holds a {type(data).__name__}, not a JSON object")
    return summarise(data)


@celery_app.task(name="send_summary_task")
def send_summary_task(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the summaries of all files, tell everybody who listens, and return the total."""
    total = {"files": len(summaries), "values": sum(summary["values"] for summary in summaries)}
    _tell({"summary": total})
    return total


@celery_app.task(name="report_failure_task", ignore_result=True)
def report_failure_task(request: Any, error: BaseException, _traceback: object) -> None:
    """Tell everybody who listens which task failed, and how.

    With these three parameters Celery calls it in the process that saw the failure; with one it would queue it with the id of
    the failed task, whose state is then not always stored yet.
    """
    _tell({"failed": request.id, "error": {"type": type(error).__name__, "message": str(error)[:500]}})


def _tell(event: dict[str, Any]) -> int:
    return int(cache.sync.client.publish(cache.sync.key(CHANNEL), json.dumps(event)))


def _bounded(files: list[str]) -> list[str]:
    if not 1 <= len(files) <= MAX_FILES:
        raise ValueError(f"1 to {MAX_FILES} files, not {len(files)}")
    return files
