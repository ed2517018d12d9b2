"""The routes of queues and workers, for operators."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path
from pydantic import BaseModel, ConfigDict, Field

from app.api.task_access import OperatorDep
from app.features.tasks.platform.problems import ProblemRoute, problem_responses
from app.features.tasks.routes import to_json
from app.worker import paused_queues, queue_states, worker_reports
from app.worker.broker import broker_client, in_thread
from app.worker.queue_states import QueueState
from app.worker.worker_reports import RunningTask, Worker

router = APIRouter(tags=["workers"], route_class=ProblemRoute, responses=problem_responses(401, 403, 503))

QueueName = Annotated[str, Path(min_length=1, max_length=255, examples=["default"])]
"""The name of a queue in a path."""

_NOT_FOUND = "There is no such queue"


class Queue(BaseModel):
    """A queue, and how far a pause has come: it is complete when `workers_paused` is `workers`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "default",
                "waiting": 12,
                "waiting_for_rules": 3,
                "oldest_age": 4.2,
                "running": 8,
                "taken": 24,
                "paused": False,
                "paused_since": None,
                "workers": 2,
                "workers_paused": 0,
            }
        }
    )

    name: str
    waiting: int = Field(description="Messages that a worker can take")
    waiting_for_rules: int = Field(description="Messages that wait for their rule of flow control")
    oldest_age: float | None = Field(description="Seconds since the oldest of both was queued, null if there is none")
    running: int = Field(description="Running tasks, as workers have reported in the last seconds")
    taken: int = Field(description="Tasks that workers have taken and will run: in advance, or with a countdown")
    paused: bool
    paused_since: datetime | None
    workers: int = Field(description="Workers whose queue it is")
    workers_paused: int = Field(description="Workers of these that take nothing from it")


class QueueList(BaseModel):
    """All queues."""

    queues: list[Queue]
    workers_without_report: int = Field(description="Workers that are starting, or of a release that cannot pause")


class TaskOfWorker(BaseModel):
    """A task that a worker runs."""

    task_id: str
    name: str
    queue: str | None
    started_at: datetime | None


class WorkerState(BaseModel):
    """A worker that has sent a heartbeat in the last seconds. What it has not told is null."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "celery@worker-1",
                "heartbeat_at": "2026-11-27T08:00:00Z",
                "pool": "prefork",
                "concurrency": 4,
                "pid": 7,
                "queues": ["default", "high"],
                "paused_queues": [],
                "running": 1,
                "taken": 3,
                "tasks": [
                    {
                        "task_id": "0b0f6a3e-8f8e-4f0e-9a53-5b0a3f3c2d11",
                        "name": "report.render",
                        "queue": "default",
                        "started_at": "2026-11-27T07:59:58.310000Z",
                    }
                ],
            }
        }
    )

    name: str
    heartbeat_at: datetime
    pool: str | None
    concurrency: int | None
    pid: int | None
    queues: list[str] | None = Field(description="The queues from which it takes messages")
    paused_queues: list[str] | None = Field(description="Its queues from which it takes none, because they are paused")
    running: int | None = Field(description="Running tasks, when it reported last")
    taken: int | None = Field(description="Tasks that wait in it, when it reported last")
    tasks: list[TaskOfWorker] | None = Field(
        description="What it runs now, up to 100 tasks; null if it has not answered within a second"
    )


class WorkerList(BaseModel):
    """The workers that are alive, by name."""

    workers: list[WorkerState]


@router.get("/queues")
async def list_queues(_: OperatorDep) -> QueueList:
    """Return each queue: what waits, since when, what runs, and whether it is paused."""
    states, without_report = await in_thread(_read)
    return QueueList(queues=[_queue(state) for state in states], workers_without_report=without_report)


@router.post("/queues/{name}/pause", responses=problem_responses(422, not_found=_NOT_FOUND))
async def pause_queue(name: QueueName, _: OperatorDep) -> Queue:
    """Let workers take no more messages of a queue. What they have taken runs; what is queued waits.

    It is stored before the response, and applied by each worker within seconds: `workers_paused` has how many. Pausing a paused queue
    changes nothing.
    """
    return await _changed(name, pause=True)


@router.post("/queues/{name}/resume", responses=problem_responses(422, not_found=_NOT_FOUND))
async def resume_queue(name: QueueName, _: OperatorDep) -> Queue:
    """Let workers take messages of a queue again; see the pause."""
    return await _changed(name, pause=False)


@router.get("/workers")
async def list_workers(_: OperatorDep) -> WorkerList:
    """Return the workers that are alive and what each runs. Takes up to a second if one does not answer."""
    found, running = await in_thread(_read_workers)
    return WorkerList(workers=[_worker(worker, running.get(worker.name)) for worker in found])


async def _changed(name: str, *, pause: bool) -> Queue:
    state = await in_thread(_change, name, pause)
    if state is None:
        raise HTTPException(404, f"There is no queue {name}.")
    return _queue(state)


def _read() -> tuple[list[QueueState], int]:
    with broker_client() as client:
        return queue_states.read(client)


def _change(name: str, pause: bool) -> QueueState | None:
    with broker_client() as client:
        before = _find(client, name)
        if before is None:
            return None
        if pause:
            paused_queues.pause(client, name)
        else:
            paused_queues.resume(client, name)
        # One that is no longer declared is listed only while it is paused.
        return _find(client, name) or replace(before, paused_since=None)


def _find(client: Any, name: str) -> QueueState | None:
    return next((state for state in queue_states.read(client)[0] if state.name == name), None)


def _read_workers() -> tuple[list[Worker], dict[str, list[RunningTask]]]:
    with broker_client() as client:
        found = worker_reports.workers(client)
    return found, worker_reports.running_tasks([worker.name for worker in found])


def _queue(state: QueueState) -> Queue:
    return Queue(
        name=to_json(state.name),
        waiting=state.waiting,
        waiting_for_rules=state.waiting_for_rules,
        oldest_age=state.oldest,
        running=state.running,
        taken=state.taken,
        paused=state.paused_since is not None,
        paused_since=state.paused_since,
        workers=state.workers,
        workers_paused=state.workers_paused,
    )


def _worker(worker: Worker, tasks: list[RunningTask] | None) -> WorkerState:
    report = worker.report
    fields: dict[str, Any] = dict.fromkeys(
        ("pool", "concurrency", "pid", "queues", "paused_queues", "running", "taken")
    )
    if report is not None:
        fields = {
            "pool": report.pool,
            "concurrency": report.concurrency,
            "pid": report.pid,
            "queues": report.consumes,
            "paused_queues": report.paused,
            "running": sum(report.running.values()),
            "taken": sum(report.taken.values()),
        }
    shown = None if tasks is None else [_task(task) for task in tasks]
    return WorkerState(name=worker.name, heartbeat_at=worker.heartbeat, tasks=shown, **fields)


def _task(task: RunningTask) -> TaskOfWorker:
    return TaskOfWorker(task_id=task.task_id, name=task.name, queue=task.queue, started_at=task.started)
