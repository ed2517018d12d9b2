"""POST /tasks/retry and POST /tasks/cancel: what a filter selects, page by page."""

import asyncio
from typing import Literal, Self

import structlog
from celery import states
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.task_access import TaskViewer, TaskViewerDep
from app.features.tasks.platform import cursors
from app.features.tasks.platform.filters import TaskFilter
from app.features.tasks.platform.problems import ProblemRoute, problem_responses
from app.worker import history, rerun
from app.worker.broker import in_thread
from app.worker.flow_control import NotQueued
from app.worker.history import Page
from app.worker.job_limit import TooManyJobs
from app.worker.publish import RetryRefused, cancel_many, retry_ended

router = APIRouter(tags=["tasks"], route_class=ProblemRoute, responses=problem_responses(400, 401, 403, 422, 503))

_AT_ONCE = 10
_logger = structlog.get_logger(__name__)


class _Selection(TaskFilter):
    """Which tasks: at least one of the fields."""

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if all(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("name at least one field, or the request would be about all tasks")
        return self


class RetrySelection(_Selection):
    """Which failed or revoked tasks to run again: at least one of the fields."""

    state: Literal["FAILURE", "REVOKED"] = "FAILURE"


class CancelSelection(_Selection):
    """Which unfinished tasks to cancel: at least one of the fields."""

    state: Literal["PENDING", "STARTED", "RETRY", "UNTRACKED"] | None = None


class _Bulk(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(True, description="False does it; true returns what the request would do, and does nothing")
    limit: int = Field(history.MAX_LIMIT, ge=1, le=history.MAX_LIMIT, description="Tasks of one request")
    cursor: str | None = Field(None, max_length=cursors.MAX_LENGTH, description="`next_cursor` of the request before")


class RetryRequest(_Bulk):
    """Which tasks to run again."""

    filter: RetrySelection


class CancelRequest(_Bulk):
    """Which tasks to cancel."""

    filter: CancelSelection
    terminate: bool = Field(True, description="Whether to end those that run")


class BulkTask(BaseModel):
    """What happened to one task."""

    task_id: str
    name: str | None
    outcome: Literal["done", "refused", "selected"] = Field(description="`selected` in a dry run: it would be done")
    retried_as: str | None = Field(None, description="The new task")
    reason: str | None = Field(None, description="Why it was refused")


class BulkResult(BaseModel):
    """What happened to the tasks of one page, the last queued first."""

    dry_run: bool
    done: int
    refused: int
    tasks: list[BulkTask]
    next_cursor: str | None = Field(
        description="The `cursor` of the next request, null when all tasks were looked at; a page may have no tasks"
    )


@router.post("/tasks/retry")
async def retry_tasks(request: RetryRequest, viewer: TaskViewerDep) -> BulkResult:
    """Run tasks again that match a filter: up to `limit` in one request. Follow `next_cursor` until it is null.

    The same request may be made again, also after an error: each task is run again once.
    """
    page = await _page(request, request.filter.state, viewer)
    ended = await in_thread(rerun.read, [record.task_id for record in page.records])
    slots = asyncio.Semaphore(_AT_ONCE)

    async def retry_one(one: rerun.Ended) -> BulkTask:
        task = BulkTask(task_id=one.record.task_id, name=one.record.name, outcome="selected")
        try:
            if request.dry_run:
                rerun.signature(one)
                return task
            async with slots:
                task.retried_as = (await retry_ended(one, limited=viewer.owner is not None)).id
                task.outcome = "done"
        except (RetryRefused, NotQueued, TooManyJobs) as error:
            task.outcome, task.reason = "refused", str(error)
        return task

    # All of them end before an error is raised.
    outcomes = await asyncio.gather(*(retry_one(one) for one in ended if one), return_exceptions=True)
    tasks = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        tasks.append(outcome)
    return _result("tasks_retried", request, viewer, tasks, page)


@router.post("/tasks/cancel")
async def cancel_tasks(request: CancelRequest, viewer: TaskViewerDep) -> BulkResult:
    """Cancel unfinished tasks that match a filter: up to `limit` in one request. Follow `next_cursor` until it is null.

    Running ones are ended as POST /tasks/{task_id}/cancel does. The same request may be made again, also after an error.
    """
    page = await _page(request, request.filter.state, viewer)
    unfinished = [record for record in page.records if record.state not in states.READY_STATES]
    tasks = [BulkTask(task_id=record.task_id, name=record.name, outcome="selected") for record in unfinished]
    if not request.dry_run:
        task_ids = [task.task_id for task in tasks]
        await cancel_many(task_ids, terminate=request.terminate)
        for task, now in zip(tasks, await in_thread(rerun.read, task_ids), strict=True):
            state = now.record.state if now else None
            if state in {states.SUCCESS, states.FAILURE}:
                task.outcome, task.reason = "refused", f"Task {task.task_id} has ended as {state}."
            else:
                task.outcome = "done"
    return _result("tasks_cancelled", request, viewer, tasks, page)


async def _page(request: RetryRequest | CancelRequest, state: str | None, viewer: TaskViewer) -> Page:
    after = cursors.decode(request.cursor, "body")
    which = request.filter.records_of(viewer, state)
    return await in_thread(history.page, which, after, request.limit) if which else Page([], None)


def _result(event: str, request: _Bulk, viewer: TaskViewer, tasks: list[BulkTask], page: Page) -> BulkResult:
    done, refused = (sum(task.outcome == outcome for task in tasks) for outcome in ("done", "refused"))
    if done:
        _logger.info(event, done=done, refused=refused, by=viewer.owner or "operator")
    return BulkResult(
        dry_run=request.dry_run, done=done, refused=refused, tasks=tasks, next_cursor=cursors.encode(page.next)
    )
