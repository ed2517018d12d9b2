"""The routes of the schedule, for operators: what is due when, what has become of it, run, pause and resume."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path
from pydantic import BaseModel, ConfigDict, Field

from app.api.task_access import OperatorDep
from app.features.tasks.platform.problems import ProblemRoute, problem_responses
from app.features.tasks.platform.schemas import TaskError
from app.features.tasks.routes import to_json
from app.worker import history, schedule_control
from app.worker.broker import broker_client, in_thread
from app.worker.history import TaskRecord
from app.worker.schedule_control import Entry

router = APIRouter(tags=["schedule"], route_class=ProblemRoute, responses=problem_responses(401, 403, 503))

EntryName = Annotated[str, Path(min_length=1, max_length=255, examples=["backup-daily"])]
"""The name of an entry of the schedule in a path."""

_NOT_FOUND = "The schedule has no such entry, or beat has not stored it yet"


class LastTask(BaseModel):
    """The task that was queued last for an entry. Without a record only its id is known."""

    task_id: str
    state: str | None
    finished_at: datetime | None
    error: TaskError | None


class ScheduleEntry(BaseModel):
    """An entry of the schedule."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "backup-daily",
                "task": "backup",
                "schedule": "crontab: 0 3 * * * (m/h/dM/MY/d)",
                "paused": False,
                "paused_since": None,
                "last_run_at": "2026-11-27T03:00:00.012000Z",
                "next_run_at": "2026-11-28T03:00:00Z",
                "last_task": {
                    "task_id": "0b0f6a3e-8f8e-4f0e-9a53-5b0a3f3c2d11",
                    "state": "SUCCESS",
                    "finished_at": "2026-11-27T03:02:11.402000Z",
                    "error": None,
                },
                "queue_error": None,
            }
        }
    )

    name: str
    task: str
    schedule: str
    paused: bool
    paused_since: datetime | None
    last_run_at: datetime | None = Field(description="When a task was queued last, by beat or for an operator")
    next_run_at: datetime | None = Field(description="When it is due; null while it is paused or beat is not running")
    last_task: LastTask | None
    queue_error: str | None = Field(description="Why it could not be queued when it was last due: the error's type")


class Schedule(BaseModel):
    """The entries by name, as beat has stored them last."""

    entries: list[ScheduleEntry]
    beat_is_alive: bool


class RequestedRun(BaseModel):
    """The task that beat queues for an entry within seconds; until then it is unknown."""

    entry: str
    task_id: str


@router.get("/schedule")
async def get_schedule(_: OperatorDep) -> Schedule:
    """Return each entry with its last and its next run."""
    entries, is_alive, records = await in_thread(_read)
    shown = [_entry(entry, records.get(entry.last_task or ""), is_alive=is_alive) for entry in entries]
    return Schedule(entries=shown, beat_is_alive=is_alive)


@router.post("/schedule/{entry}/run", status_code=202, responses=problem_responses(422, not_found=_NOT_FOUND))
async def run_entry(entry: EntryName, _: OperatorDep) -> RequestedRun:
    """Have beat queue the task of an entry now, also of a paused one. Its next run stays as it is.

    A second request before beat has queued the task returns the same task. 503 if no beat is running.
    """
    found, is_alive = await in_thread(_find, entry)
    _check_found(found, entry)
    if not is_alive:
        raise HTTPException(503, "No beat is running that could queue the task.", headers={"Retry-After": "30"})
    return RequestedRun(entry=entry, task_id=await in_thread(_request, entry))


@router.post("/schedule/{entry}/pause", responses=problem_responses(422, not_found=_NOT_FOUND))
async def pause_entry(entry: EntryName, _: OperatorDep) -> ScheduleEntry:
    """Have beat skip an entry from now on, also after a restart. What is queued already runs."""
    return await _changed(entry, pause=True)


@router.post("/schedule/{entry}/resume", responses=problem_responses(422, not_found=_NOT_FOUND))
async def resume_entry(entry: EntryName, _: OperatorDep) -> ScheduleEntry:
    """Have beat run an entry again when it is due the next time. The runs that it has skipped are not made up for."""
    return await _changed(entry, pause=False)


async def _changed(name: str, *, pause: bool) -> ScheduleEntry:
    found, _ = await in_thread(_find, name)
    _check_found(found, name)
    await in_thread(_change, name, pause)
    entries, is_alive, records = await in_thread(_read)
    entry = next((one for one in entries if one.name == name), None)
    if entry is None:
        raise _not_found(name)
    return _entry(entry, records.get(entry.last_task or ""), is_alive=is_alive)


def _read() -> tuple[list[Entry], bool, dict[str, TaskRecord]]:
    with broker_client() as client:
        entries, is_alive = schedule_control.read(client)
    records = [history.read(entry.last_task) for entry in entries if entry.last_task]
    return entries, is_alive, {record.task_id: record for record in records if record}


def _find(name: str) -> tuple[Entry | None, bool]:
    with broker_client() as client:
        entries, is_alive = schedule_control.read(client)
    return next((entry for entry in entries if entry.name == name), None), is_alive


def _change(name: str, pause: bool) -> None:
    with broker_client() as client:
        if pause:
            schedule_control.pause(client, name)
        else:
            schedule_control.resume(client, name)


def _request(name: str) -> str:
    with broker_client() as client:
        return schedule_control.request_run(client, name)


def _check_found(entry: Entry | None, name: str) -> None:
    if entry is None:
        raise _not_found(name)


def _not_found(name: str) -> HTTPException:
    return HTTPException(404, f"The schedule has no entry {name}, or beat has not stored it yet.")


def _entry(entry: Entry, record: TaskRecord | None, *, is_alive: bool) -> ScheduleEntry:
    described = entry.description
    is_paused = entry.paused_since is not None or not described.enabled
    is_due = is_alive and not is_paused and described.next_run is not None
    task: dict[str, Any] | None = None
    if entry.last_task is not None:
        task = {
            "task_id": entry.last_task,
            "state": record.state if record else None,
            "finished_at": record.finished if record else None,
            "error": to_json(record.error) if record else None,
        }
    return ScheduleEntry(
        name=to_json(entry.name),
        task=described.task,
        schedule=described.schedule,
        paused=is_paused,
        paused_since=entry.paused_since,
        last_run_at=entry.last_run,
        next_run_at=datetime.fromtimestamp(described.next_run, UTC) if is_due and described.next_run else None,
        last_task=LastTask(**task) if task else None,
        queue_error=entry.error,
    )
