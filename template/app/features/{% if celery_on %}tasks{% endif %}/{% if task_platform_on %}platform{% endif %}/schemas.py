"""What the routes return about tasks."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.features.tasks.routes import to_json
from app.worker.history import TaskRecord

TaskId = Annotated[str, Path(max_length=155, pattern=r"^[\w.:-]+$", examples=["0b0f6a3e-8f8e-4f0e-9a53-5b0a3f3c2d11"])]
"""The id of a task in a path."""

_EXAMPLE: dict[str, JsonValue] = {
    "task_id": "0b0f6a3e-8f8e-4f0e-9a53-5b0a3f3c2d11",
    "name": "report.render",
    "queue": "default",
    "state": "RETRY",
    "owner": "user-7",
    "arguments": "(11, 2026)",
    "keyword_arguments": "{}",
    "attempt": 1,
    "redeliveries": 0,
    "progress": None,
    "worker": "celery@worker-1",
    "error": {"type": "TimeoutError", "message": "the printer does not answer"},
    "queued_at": "2026-11-27T08:00:00.125000Z",
    "started_at": "2026-11-27T08:00:00.310000Z",
    "finished_at": None,
    "next_retry_at": "2026-11-27T08:01:00.900000Z",
    "eta": None,
    "parent_id": None,
    "root_id": None,
    "group_id": None,
    "replay_of": None,
}


class TaskError(BaseModel):
    """The error of an attempt."""

    type: str
    message: str


class TaskSummary(BaseModel):
    """A task, as it was queued and as far as it has come. What is unknown or has not happened is null."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    task_id: str
    name: str | None
    queue: str | None
    state: str = Field(
        description="PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED. UNTRACKED for a task with `ignore_result=True` that waits, "
        "runs or has succeeded: only its failure and its cancellation are stored."
    )
    owner: str | None
    arguments: str | None = Field(description="The first characters of the positional arguments, or (hidden)")
    keyword_arguments: str | None
    attempt: int = Field(description="The number of the last attempt, 0 before the first")
    redeliveries: int = Field(description="How often the task was redelivered, because its worker died")
    progress: Any = Field(description="The task's own state and its value, as it stored them last")
    worker: str | None
    error: TaskError | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_retry_at: datetime | None
    eta: str | None
    parent_id: str | None
    root_id: str | None = Field(description="The first task of its workflow, null for that task itself")
    group_id: str | None
    replay_of: str | None = Field(description="The task that this one runs again")


class TaskList(BaseModel):
    """One page of tasks, the last queued first. A page may be short, or even empty, and still have a next one."""

    tasks: list[TaskSummary]
    next_cursor: str | None = Field(description="The `cursor` of the next page, null after the last one")


class TaskAttempt(BaseModel):
    """One run of a task."""

    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    error: TaskError | None


class TaskDetail(TaskSummary):
    """A task with its attempts and the tasks that it has queued."""

    attempts: list[TaskAttempt] = Field(description="The last attempts, the newest last")
    children: list[TaskSummary] = Field(description="The last 100 tasks that it has queued, or that followed it")


def summary(record: TaskRecord) -> dict[str, Any]:
    """Return the fields of `TaskSummary`."""
    return {
        "task_id": record.task_id,
        "name": record.name,
        "queue": record.queue,
        "state": record.state,
        "owner": record.owner,
        "arguments": record.args,
        "keyword_arguments": record.kwargs,
        "attempt": record.attempt,
        "redeliveries": record.redeliveries,
        "progress": to_json(record.progress),
        "worker": record.worker,
        "error": to_json(record.error),
        "queued_at": record.queued,
        "started_at": record.started,
        "finished_at": record.finished,
        "next_retry_at": record.next_retry,
        "eta": record.eta,
        "parent_id": record.parent,
        "root_id": record.root,
        "group_id": record.group,
        "replay_of": record.replay_of,
    }


def detail(record: TaskRecord, children: list[TaskRecord]) -> TaskDetail:
    """Return a task with its attempts and children."""
    attempts = [
        TaskAttempt(attempt=one.number, started_at=one.started, finished_at=one.finished, error=to_json(one.error))
        for one in record.attempts
    ]
    summaries = [TaskSummary(**summary(child)) for child in children]
    return TaskDetail(**summary(record), attempts=attempts, children=summaries)
