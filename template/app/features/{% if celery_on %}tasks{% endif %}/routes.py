"""Tasks over HTTP."""

import base64
import math
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from app.api.owner import TaskReaderDep
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker.publish import enqueue, status_of, wait_for
from app.worker.status import TaskStatus

_UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"description": "Redis does not answer"}}
router = APIRouter(tags=["tasks"], responses=_UNAVAILABLE)
examples = APIRouter(tags=["tasks"], responses=_UNAVAILABLE)
"""Apart, as production does not serve it: whoever reaches the API could fill the queue."""


class TaskStatusResponse(BaseModel):
    """State of a task: its result after SUCCESS, its error's type and message after RETRY, FAILURE or REVOKED."""

    task_id: str
    status: str
    result: Any = None
    error: dict[str, str] | None = None


class ProcessResponse(BaseModel):
    """`completed` with the result, `failed` with the error, or `processing`: ask GET /task/{task_id} later."""

    status: str
    task_id: str
    result: Any = None
    error: dict[str, str] | None = None


@router.get("/task/{task_id}", responses={404: {"description": "Never queued, another's, or its record has expired"}})
async def task_status(
    task_id: Annotated[str, Path(max_length=155, pattern=r"^[\w.:-]+$")], reader: TaskReaderDep
) -> TaskStatusResponse:
    """Return the state of a task, to its owner where there are accounts."""
    status = await status_of(task_id)
    # One answer for both: another would tell which ids there are.
    if status is None or not reader.may_read(status.owner):
        raise HTTPException(404, f"No task {task_id} of yours is known: never queued, or its record has expired.")
    return TaskStatusResponse(**_fields(status))


@examples.post("/process", responses={202: {"model": ProcessResponse}, 500: {"model": ProcessResponse}})
async def process_data(data: dict[str, Any], response: Response) -> ProcessResponse:
    """Queue a task and wait for its result, for at most `CELERY_PROCESS_WAIT` seconds."""
    result = await enqueue(process_task.s(data))
    status = await wait_for(result.id, celery_settings.process_wait)
    if status is None or not status.ready:
        response.status_code = 202
        return ProcessResponse(status="processing", task_id=result.id)
    if status.error is not None:
        response.status_code = 500
        return ProcessResponse(status="failed", task_id=result.id, error=_shown(status.error))
    return ProcessResponse(status="completed", task_id=result.id, result=_shown(status.result))


async def too_many_jobs(_: Request, error: Exception) -> JSONResponse:
    """Answer 429 to an owner of too many jobs that have not ended."""
    return JSONResponse({"detail": str(error)}, status_code=429, headers={"Retry-After": "30"})


async def queue_unavailable(_: Request, error: Exception) -> JSONResponse:
    """Answer 503 where Redis does not take or show a task."""
    return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": "5"})


async def invalid_arguments(_: Request, error: Exception) -> JSONResponse:
    """Answer 422 where no message can hold what a route queues, in the form of other invalid requests."""
    return JSONResponse(
        {"detail": [{"type": "invalid_arguments", "loc": ["body"], "msg": str(error)}]}, status_code=422
    )


def _fields(status: TaskStatus) -> dict[str, Any]:
    return {
        "task_id": status.task_id,
        "status": _shown(status.status),
        "result": _shown(status.result),
        "error": _shown(status.error),
    }


def _shown(value: Any) -> Any:
    """Return a result as JSON can hold it; docs/celery.md lists what becomes of which type."""
    if isinstance(value, dict):
        return {_shown(str(key)): _shown(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(part) for part in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
