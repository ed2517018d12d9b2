"""The API, in which a header names the owner and every client sees all tasks: `uvicorn chaos_api:api`."""

# First: the API has the tasks that are known when it is made.
import chaos_probe  # noqa: F401
from fastapi import Request

from app.api.owner import current_owner
from app.api.task_access import TaskViewer, operator_or_owner
from app.main import create_app


def _owner(request: Request) -> str:
    return request.headers["X-Owner"]


api = create_app()
api.dependency_overrides[operator_or_owner] = lambda: TaskViewer(None)
api.dependency_overrides[current_owner] = _owner
