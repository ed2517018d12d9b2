"""GET /tasks: the tasks of a user, or for an operator those of all."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from app.api.task_access import TaskViewerDep
from app.features.tasks.platform import cursors
from app.features.tasks.platform.filters import TaskFilter
from app.features.tasks.platform.problems import ProblemRoute, problem_responses
from app.features.tasks.platform.schemas import TaskList, TaskSummary, summary
from app.worker import history
from app.worker.broker import in_thread

router = APIRouter(tags=["tasks"], route_class=ProblemRoute, responses=problem_responses(401, 403, 422, 503))


class TaskQuery(TaskFilter):
    """Which tasks to return. All filters must match; an unknown parameter is an error, as it would not filter."""

    state: Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED", "UNTRACKED"] | None = None
    cursor: str | None = Field(None, max_length=cursors.MAX_LENGTH, description="`next_cursor` of the page before")
    limit: int = Field(50, ge=1, le=history.MAX_LIMIT)


@router.get("/tasks")
async def list_tasks(query: Annotated[TaskQuery, Query()], viewer: TaskViewerDep) -> TaskList:
    """Return tasks that were queued in the last `CELERY_RECORDS_EXPIRE` seconds, the last queued first.

    A user sees their own tasks, an operator all. Follow `next_cursor` until it is null, also over a page without tasks.
    """
    after = cursors.decode(query.cursor)
    which = query.records_of(viewer, query.state)
    if which is None:
        return TaskList(tasks=[], next_cursor=None)
    page = await in_thread(history.page, which, after, query.limit)
    tasks = [TaskSummary(**summary(record)) for record in page.records]
    return TaskList(tasks=tasks, next_cursor=cursors.encode(page.next))
