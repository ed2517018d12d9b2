"""POST /tasks/{task_id}/cancel and /retry."""

from typing import Annotated

import structlog
from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, Field

from app.api.task_access import TaskViewerDep
from app.features.tasks.platform.problems import ProblemRoute, problem_responses, unknown_task
from app.features.tasks.platform.schemas import TaskId
from app.worker import history, rerun
from app.worker.broker import in_thread
from app.worker.publish import cancel, retry_ended, status_of

router = APIRouter(tags=["tasks"], route_class=ProblemRoute, responses=problem_responses(401, 403, 404, 409, 422, 503))
_logger = structlog.get_logger(__name__)


class Cancelled(BaseModel):
    """The state of a task that was cancelled."""

    task_id: str
    state: str = Field(
        description="REVOKED, or the state of a task that runs until its worker has ended it, such as STARTED or its own"
    )


class Retried(BaseModel):
    """The task that runs another one again."""

    task_id: str
    replay_of: str


@router.post("/tasks/{task_id}/cancel", status_code=202)
async def cancel_task(
    task_id: TaskId,
    viewer: TaskViewerDep,
    terminate: Annotated[bool, Query(description="Whether to end the task if it runs")] = True,
) -> Cancelled:
    """Cancel a task that waits, has a countdown, is to be retried or runs. One that has ended otherwise is a 409.

    A prefork worker ends a running task, a threads worker an `async def` task; in a thread, a `def` task runs to its end.
    """
    record = await in_thread(history.read, task_id)
    # A task in the outbox has no record.
    owned = record or await status_of(task_id)
    if owned is None or not viewer.may_see(owned.owner):
        raise unknown_task(task_id)
    status = await cancel(task_id, terminate=terminate)
    if status is None:
        raise unknown_task(task_id)
    if status.ready and status.status != "REVOKED":
        raise HTTPException(409, f"Task {task_id} has ended as {status.status}.")
    _logger.info("task_cancelled", task_id=task_id, state=status.status, by=viewer.owner or "operator")
    return Cancelled(task_id=task_id, state=status.status)


@router.post("/tasks/{task_id}/retry", status_code=202, responses=problem_responses(429))
async def retry_task(task_id: TaskId, viewer: TaskViewerDep, response: Response) -> Retried:
    """Run a task that is FAILURE or REVOKED again, as a new task with the same arguments, queue and owner.

    Each further request returns the same new task. A 409 has the reason why a task cannot run again.
    """
    (ended,) = await in_thread(rerun.read, [task_id])
    if ended is None or not viewer.may_see(ended.record.owner):
        raise unknown_task(task_id)
    new = (await retry_ended(ended, limited=viewer.owner is not None)).id
    _logger.info("task_retried", task_id=task_id, new_task_id=new, by=viewer.owner or "operator")
    response.headers["Location"] = f"/tasks/{new}"
    return Retried(task_id=new, replay_of=task_id)
