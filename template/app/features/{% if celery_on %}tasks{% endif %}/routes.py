"""Routes to read a task's state, and an example that waits for a result."""

import base64
import math
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from app.api.owner import TaskReaderDep
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker.publish import NotQueued, enqueue, status_of, wait_for
from app.worker.status import TaskStatus

_UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"description": "Redis is unavailable"}}
router = APIRouter(tags=["tasks"], responses=_UNAVAILABLE)
examples = APIRouter(tags=["tasks"], responses=_UNAVAILABLE)
"""A separate router, because production does not serve it: any client could fill the queue."""


class TaskStatusResponse(BaseModel):
    """The state of a task, with its result after SUCCESS, or its error after RETRY, FAILURE or REVOKED."""

    task_id: str
    status: str
    result: Any = None
    error: dict[str, str] | None = None


class ProcessResponse(BaseModel):
    """`completed` with the result, `failed` with the error, or `processing`; then poll GET /task/{task_id}."""

    status: str
    task_id: str
    result: Any = None
    error: dict[str, str] | None = None


@router.get(
    "/task/{task_id}", responses={404: {"description": "The task is unknown, has expired, or belongs to another user"}}
)
async def task_status(
    task_id: Annotated[str, Path(max_length=155, pattern=r"^[\w.:-]+$")], reader: TaskReaderDep
) -> TaskStatusResponse:
    """Return the state of a task. With accounts, only its owner may read it."""
    status = await status_of(task_id)
    # The same response in both cases, so that it does not reveal which ids exist.
    if status is None or not reader.may_read(status.owner):
        raise HTTPException(404, f"You have no task {task_id}: it was never queued, or its record has expired.")
    return TaskStatusResponse(**_fields(status))


@examples.post("/process", responses={202: {"model": ProcessResponse}, 500: {"model": ProcessResponse}})
async def process_data(data: dict[str, Any], response: Response) -> ProcessResponse:
    """Queue a task and wait up to `CELERY_PROCESS_WAIT` seconds for its result."""
    result = await enqueue(process_task.s(data))
    status = await wait_for(result.id, celery_settings.process_wait)
    if status is None or not status.ready:
        response.status_code = 202
        return ProcessResponse(status="processing", task_id=result.id)
    if status.error is not None:
        response.status_code = 500
        return ProcessResponse(status="failed", task_id=result.id, error=to_json(status.error))
    return ProcessResponse(status="completed", task_id=result.id, result=to_json(status.result))


async def too_many_jobs(_: Request, error: Exception) -> JSONResponse:
    """Return 429 to an owner with too many unfinished jobs."""
    return JSONResponse({"detail": str(error)}, status_code=429, headers={"Retry-After": "30"})


async def not_queued(_: Request, error: Exception) -> JSONResponse:
    """Return 429 for a task that a limit keeps from being queued."""
    retry_after = math.ceil(error.retry_after) if isinstance(error, NotQueued) else 1
    return JSONResponse({"detail": str(error)}, status_code=429, headers={"Retry-After": str(max(1, retry_after))})


async def queue_unavailable(_: Request, error: Exception) -> JSONResponse:
    """Return 503 if Redis cannot store or return a task."""
    return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": "5"})


async def invalid_arguments(_: Request, error: Exception) -> JSONResponse:
    """Return 422, with the same schema as other invalid requests, if the task's arguments do not fit a message."""
    return JSONResponse(
        {"detail": [{"type": "invalid_arguments", "loc": ["body"], "msg": str(error)}]}, status_code=422
    )


async def idempotency_key_reused(_: Request, error: Exception) -> JSONResponse:
    """Return 409 if the idempotency key was used for another task or other arguments."""
    return JSONResponse({"detail": str(error)}, status_code=409)


def _fields(status: TaskStatus) -> dict[str, Any]:
    return {
        "task_id": status.task_id,
        "status": to_json(status.status),
        "result": to_json(status.result),
        "error": to_json(status.error),
    }


def to_json(value: Any) -> Any:
    """Return a value that JSON can represent; docs/celery.md lists the conversions."""
    if isinstance(value, dict):
        return {to_json(str(key)): to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
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
