"""GET /tasks/{task_id}/events: one task as Server-Sent Events, until it has ended."""

import asyncio
import hashlib
import random
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.api.task_access import TaskViewer, TaskViewerDep
from app.features.tasks.platform.problems import ProblemRoute, problem_responses
from app.features.tasks.platform.schemas import TaskId, TaskSummary, summary
from app.worker import history, watch
from app.worker.broker import in_thread
from app.worker.history import TaskRecord
from app.worker.watch import TooManyWatchers, Watcher

MAX_AGE = 600.0
"""Seconds after which a stream ends, so that a login that is no longer valid sees no more; the client connects again."""

MAX_STREAMS_OF_OWNER = 100
"""Streams of one user in this process, so that nobody takes those of all others."""

_RECONNECT_AFTER = (1000, 5000)
"""Milliseconds after which a client connects again: not all at once when a process stops."""

_DATA = {"contentMediaType": "application/json", "contentSchema": {"$ref": "#/components/schemas/TaskSummary"}}
_EXAMPLE = 'event: progress\ndata: {"task_id": "0b0f6a3e", "state": "STARTED", "progress": …, …}\nid: 5f1c8a90d2\n\n'
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events",
        "content": {"text/event-stream": {"itemSchema": {"properties": {"data": _DATA}}, "example": _EXAMPLE}},
    },
    204: {
        "description": "The task has ended, and `Last-Event-ID` is its last event: EventSource does not connect again"
    },
    **problem_responses(401, 403, 404, 422, 429, 503),
}
router = APIRouter(tags=["tasks"], route_class=ProblemRoute, responses=_RESPONSES)

LastEventId = Annotated[str | None, Header(max_length=100, description="The `id` of the last event that arrived")]

_streams: Counter[str] = Counter()


async def _watcher(task_id: TaskId, viewer: TaskViewerDep, last_event_id: LastEventId = None) -> AsyncIterator[Watcher]:
    # Here, because the head of the response is sent before the first line of the route runs.
    async with watcher_for(task_id, viewer, last_event_id) as watcher:
        yield watcher


@asynccontextmanager
async def watcher_for(task_id: str, viewer: TaskViewer, last_event_id: str | None) -> AsyncIterator[Watcher]:
    """Watch a task for a client during the block; raise 404, 429 or 503, and 204 if the client has its last event."""
    record = await in_thread(history.read, task_id)
    # The same response in both cases, so that it does not reveal which ids exist.
    if record is None or not viewer.may_see(record.owner):
        raise HTTPException(404, f"You have no task {task_id}: it was never queued, or its record has expired.")
    if watch.has_ended(record) and _event(record, None).id == last_event_id:
        raise HTTPException(204)
    try:
        with _counted(viewer), watch.watching(record) as watcher:
            timer = asyncio.get_running_loop().call_later(MAX_AGE, watcher.stop)
            try:
                yield watcher
            finally:
                timer.cancel()
    except TooManyWatchers as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from error


@router.get("/tasks/{task_id}/events", response_class=EventSourceResponse)
async def task_events(
    watcher: Annotated[Watcher, Depends(_watcher)], last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Send the task now and whenever it changes, until it has ended.

    An event is `state`, or `progress` if only the progress has changed. Its data are those of GET /tasks/{task_id} without
    attempts and children. A client that is slower than the task gets the newest event, and none of those in between.

    A stream also ends after ten minutes, and when the server stops. Connect again with `Last-Event-ID`, as EventSource does: the
    first event is what has changed since then.
    """
    yield ServerSentEvent(retry=random.randint(*_RECONNECT_AFTER))  # noqa: S311 - a pause is no secret
    previous: TaskRecord | None = None
    async for record in watcher.records():
        event = _event(record, previous)
        if previous is not None or event.id != last_event_id:
            yield event
        previous = record


@asynccontextmanager
async def ending_with_the_process() -> AsyncIterator[None]:
    """End all streams when the process is asked to stop; a server waits for them before it stops the application."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.call_soon_threadsafe(watch.stop_all)

    with _before_handlers(stop):
        yield


@contextmanager
def _before_handlers(call: Callable[[], None]) -> Iterator[None]:
    """Call something when a signal asks the process to stop, before what handles the signal."""
    handlers: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        call()
        handlers[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM.value, signal.SIGINT.value):
            handler = signal.getsignal(number)
            # Without one, the signal ends the process.
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _counted(viewer: TaskViewer) -> Iterator[None]:
    owner = viewer.owner
    if owner is None:
        yield
        return
    if _streams[owner] >= MAX_STREAMS_OF_OWNER:
        detail = f"You have {MAX_STREAMS_OF_OWNER} open streams; close some."
        raise HTTPException(429, detail, headers={"Retry-After": "5"})
    _streams[owner] += 1
    try:
        yield
    finally:
        _streams[owner] -= 1
        if not _streams[owner]:
            del _streams[owner]


def _event(record: TaskRecord, previous: TaskRecord | None) -> ServerSentEvent:
    data = TaskSummary(**summary(record)).model_dump_json()
    # Of what it contains: each process gives an event the same id.
    event_id = hashlib.blake2s(data.encode(), digest_size=12).hexdigest()
    is_progress = previous is not None and replace(previous, progress=record.progress) == record
    return ServerSentEvent(event="progress" if is_progress else "state", id=event_id, raw_data=data)
