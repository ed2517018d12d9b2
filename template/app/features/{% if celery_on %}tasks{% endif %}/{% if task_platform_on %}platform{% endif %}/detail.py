"""GET /tasks/{task_id}: one task with its attempts and the tasks that it has queued."""

from fastapi import APIRouter

from app.api.task_access import TaskViewerDep
from app.features.tasks.platform.problems import ProblemRoute, problem_responses, unknown_task
from app.features.tasks.platform.schemas import TaskDetail, TaskId, detail
from app.worker import history
from app.worker.broker import in_thread
from app.worker.history import TaskRecord

router = APIRouter(tags=["tasks"], route_class=ProblemRoute, responses=problem_responses(401, 403, 404, 422, 503))


@router.get("/tasks/{task_id}")
async def get_task(task_id: TaskId, viewer: TaskViewerDep) -> TaskDetail:
    """Return a task. Another user's task is a 404, except for an operator."""
    found = await in_thread(_read, task_id)
    # The same response in both cases, so that it does not reveal which ids exist.
    if found is None or not viewer.may_see(found[0].owner):
        raise unknown_task(task_id)
    record, children = found
    return detail(record, [child for child in children if viewer.may_see(child.owner)])


def _read(task_id: str) -> tuple[TaskRecord, list[TaskRecord]] | None:
    record = history.read(task_id)
    return (record, history.children(record)) if record else None
