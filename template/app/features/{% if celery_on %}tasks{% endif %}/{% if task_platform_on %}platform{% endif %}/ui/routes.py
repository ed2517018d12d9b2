"""The pages of tasks, dead letters, queues and workers, their forms, the login, and static files."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError

from app.api.task_access import LOGIN_FIELDS, log_in, log_out
from app.features.tasks.platform import actions, bulk, dead_letters, detail, events, listing, queues
from app.features.tasks.platform.dead_letters import LetterId
from app.features.tasks.platform.events import LastEventId
from app.features.tasks.platform.queues import QueueName
from app.features.tasks.platform.schemas import TaskId, TaskSummary, summary
from app.features.tasks.platform.ui import pages
from app.features.tasks.platform.ui.pages import HOME, PageOperator, form_of, path_of, render, see_other
from app.worker import history
from app.worker.broker import in_thread
from app.worker.history import Counts
from app.worker.watch import Watcher

router = APIRouter(prefix=HOME, route_class=pages.PageRoute, include_in_schema=False)

_PERIODS = {
    "last 5 minutes": timedelta(minutes=5),
    "last hour": timedelta(hours=1),
    "last 24 hours": timedelta(days=1),
}
_PER_PAGE = 50
_UNFINISHED = ("PENDING", "STARTED", "RETRY", "UNTRACKED")
_CHANGES = {"FAILURE": "retry", "REVOKED": "retry", **dict.fromkeys(_UNFINISHED, "cancel")}
"""What can be done with all tasks in a state."""


@router.get("/static/{name}")
async def static(name: Literal["ui.css", "ui.js"], request: Request, v: str = "") -> Response:
    """Return a static file; its URL in a page has its hash, so that a browser needs it once per release."""
    content, digest = pages.static_file(name)
    age = "public, max-age=31536000, immutable" if v == digest else "no-cache"
    headers = {"ETag": f'"{digest}"', "Cache-Control": age}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=pages.STATIC[name], headers=headers)


@router.get("/login")
async def login_form(request: Request) -> Response:
    """Ask for the operator's login."""
    return _login_page(request, request.query_params.get("next"))


@router.post("/login")
async def login(request: Request) -> Response:
    """Log in, and return to the page that asked for it."""
    form = await form_of(request)
    response = see_other(pages.local(form.get("next")))
    try:
        await log_in(form, request, response)
    except HTTPException as error:
        return _login_page(request, form.get("next"), form, error.status_code, str(error.detail), error.headers)
    except ValidationError as error:
        text = "; ".join(f"{name}: {text}" for name, text in pages.messages(error).items())
        return _login_page(request, form.get("next"), form, 422, text)
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the login."""
    response = see_other(f"{HOME}/login", done="logged-out")
    await log_out(request, response)
    return response


@router.get("")
async def overview(request: Request, viewer: PageOperator) -> Response:
    """Show what needs attention, the queues, rates, and failures by error."""
    listed, letters, counts, failures = await asyncio.gather(
        queues.list_queues(viewer),
        dead_letters.list_dead_letters(dead_letters.LetterQuery(limit=1), viewer),
        in_thread(history.counts, *_PERIODS.values()),
        in_thread(history.failures, _PERIODS["last 24 hours"]),
    )
    return render(
        request,
        "overview.html",
        queues=listed.queues,
        letters=letters.total,
        rates=list(zip(_PERIODS, counts, strict=True)),
        failures=failures,
        since=_since,
        rate=_rate,
    )


@router.get("/tasks")
async def tasks(request: Request, viewer: PageOperator) -> Response:
    """List tasks that match a filter."""
    given = _given(request.query_params)
    found, invalid = None, dict[str, str]()
    try:
        query = listing.TaskQuery.model_validate({"limit": _PER_PAGE} | _with_time_zones(given))
        found = await listing.list_tasks(query, viewer)
    except (ValidationError, RequestValidationError) as error:
        invalid = pages.messages(error)
    return render(
        request,
        "tasks.html",
        422 if invalid else 200,
        given=given,
        invalid=invalid,
        tasks=found.tasks if found else [],
        **_paging(f"{HOME}/tasks", given, found.next_cursor if found else None),
        change=_CHANGES.get(given.get("state", "")),
        selection={name: value for name, value in given.items() if name not in {"cursor", "limit"}},
        next_cursor=request.query_params.get("n_cursor", ""),
        states=get_args(get_args(listing.TaskQuery.model_fields["state"].annotation)[0]),
        queues=[queue.name for queue in (await queues.list_queues(viewer)).queues],
    )


@router.post("/tasks/{change}-all")
async def change_tasks(change: Literal["retry", "cancel"], request: Request, viewer: PageOperator) -> Response:
    """Run again or cancel the tasks that match a filter, up to a hundred of them; a cursor continues."""
    form = {name: value for name, value in (await form_of(request)).items() if value}
    cursor = form.pop("cursor", None)
    which = {"filter": _with_time_zones(form), "cursor": cursor, "dry_run": False}
    if change == "retry":
        done = await bulk.retry_tasks(bulk.RetryRequest.model_validate(which), viewer)
    else:
        done = await bulk.cancel_tasks(bulk.CancelRequest.model_validate(which), viewer)
    numbers = {"done": "tasks", "n_done": done.done, "n_refused": done.refused}
    more = {"n_cursor": done.next_cursor} if done.next_cursor else {}
    return see_other(f"{HOME}/tasks", **form, **numbers, **more)


@router.get("/tasks/{task_id}")
async def task(task_id: TaskId, request: Request, viewer: PageOperator) -> Response:
    """Show a task with its attempts and the tasks below it."""
    found = await detail.get_task(task_id, viewer)
    below: dict[str, list[TaskSummary]] = defaultdict(list)
    for record in reversed(await in_thread(history.workflow, found.root_id or task_id)):
        if record.parent and record.task_id != found.root_id:
            below[record.parent].append(TaskSummary(**summary(record)))
    return render(
        request,
        "task.html",
        task=found,
        below=below,
        is_unfinished=found.state in _UNFINISHED,
        can_retry=found.state in {"FAILURE", "REVOKED"},
    )


@router.post("/tasks/{task_id}/cancel")
async def cancel(task_id: TaskId, viewer: PageOperator) -> Response:
    """Cancel a task."""
    cancelled = await actions.cancel_task(task_id, viewer)
    return see_other(path_of("tasks", task_id), done="cancelled" if cancelled.state == "REVOKED" else "cancelling")


@router.post("/tasks/{task_id}/retry")
async def retry(task_id: TaskId, viewer: PageOperator) -> Response:
    """Run a task again that has failed or was cancelled."""
    new = await actions.retry_task(task_id, viewer, Response())
    return see_other(path_of("tasks", new.task_id), done="retried")


async def _watcher(task_id: TaskId, viewer: PageOperator, last_event_id: LastEventId = None) -> AsyncIterator[Watcher]:
    async with events.watcher_for(task_id, viewer, last_event_id) as watcher:
        yield watcher


@router.get("/tasks/{task_id}/events", response_class=EventSourceResponse)
async def task_events(
    watcher: Annotated[Watcher, Depends(_watcher)], last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Send the events of GET /tasks/{task_id}/events to a browser that has the page's cookie."""
    async for event in events.task_events(watcher, last_event_id):
        yield event


@router.get("/dead-letters")
async def letters(request: Request, viewer: PageOperator) -> Response:
    """List dead letters, and group them by error."""
    given = _given(request.query_params)
    found, invalid = None, dict[str, str]()
    try:
        query = dead_letters.LetterQuery.model_validate({"limit": _PER_PAGE} | given)
        found = await dead_letters.list_dead_letters(query, viewer)
    except (ValidationError, RequestValidationError) as error:
        invalid = pages.messages(error)
    paging = _paging(f"{HOME}/dead-letters", given, found.next_cursor if found else None)
    return render(
        request, "dead_letters.html", 422 if invalid else 200, given=given, invalid=invalid, found=found, **paging
    )


@router.post("/dead-letters/{change}-all")
async def change_letters(change: Literal["replay", "delete"], request: Request, viewer: PageOperator) -> Response:
    """Replay or delete the dead letters of one task and error, up to a hundred of them."""
    form = await form_of(request)
    which = {"error": form.get("error"), "task": form.get("task"), "dry_run": False}
    if not which["error"] or not which["task"]:
        raise HTTPException(422, "Name an error and a task, or it would be about all dead letters.")
    if change == "replay":
        done = await dead_letters.replay_dead_letters(dead_letters.BulkReplay.model_validate(which), viewer)
    else:
        done = await dead_letters.delete_dead_letters(dead_letters.Bulk.model_validate(which), viewer)
    numbers = {"n_done": len(done.done), "n_refused": len(done.refused), "n_remaining": done.remaining}
    return see_other(f"{HOME}/dead-letters", done="bulk", **numbers)


@router.get("/dead-letters/{letter_id}")
async def letter(letter_id: LetterId, request: Request, viewer: PageOperator) -> Response:
    """Show a dead letter with its message."""
    return render(request, "dead_letter.html", letter=await dead_letters.get_dead_letter(letter_id, viewer))


@router.post("/dead-letters/{letter_id}/replay")
async def replay_letter(letter_id: LetterId, request: Request, viewer: PageOperator) -> Response:
    """Queue the message of a dead letter again."""
    alone = "alone" in await form_of(request)
    replayed = await dead_letters.replay_dead_letter(letter_id, viewer, alone=alone)
    return see_other(path_of("tasks", str(replayed.task_id)), done="replayed")


@router.post("/dead-letters/{letter_id}/delete")
async def delete_letter(letter_id: LetterId, viewer: PageOperator) -> Response:
    """Delete a dead letter."""
    await dead_letters.delete_dead_letter(letter_id, viewer)
    return see_other(f"{HOME}/dead-letters", done="deleted")


@router.get("/queues")
async def queues_and_workers(request: Request, viewer: PageOperator) -> Response:
    """Show the queues and the workers."""
    listed, workers = await asyncio.gather(queues.list_queues(viewer), queues.list_workers(viewer))
    return render(
        request,
        "queues.html",
        queues=listed.queues,
        without_report=listed.workers_without_report,
        workers=workers.workers,
    )


# Not after the name, which may contain a slash.
@router.post("/queues/pause/{name:path}")
async def pause(name: QueueName, viewer: PageOperator) -> Response:
    """Pause a queue."""
    await queues.pause_queue(name, viewer)
    return see_other(f"{HOME}/queues", done="paused")


@router.post("/queues/resume/{name:path}")
async def resume(name: QueueName, viewer: PageOperator) -> Response:
    """Resume a queue."""
    await queues.resume_queue(name, viewer)
    return see_other(f"{HOME}/queues", done="resumed")


def _login_page(
    request: Request,
    after: str | None,
    form: Mapping[str, str] | None = None,
    status: int = 200,
    problem: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    given = {name: (form or {}).get(name, "") for name in LOGIN_FIELDS if name == "email"}
    page = render(
        request, "login.html", status, after=pages.local(after), given=given, problem=problem, is_logged_in=False
    )
    page.headers.update(headers or {})
    return page


def _given(query: Mapping[str, str]) -> dict[str, str]:
    """Return the filters of a form: a field that is empty does not filter, and the notice of an action is none."""
    return {name: value for name, value in query.items() if value and not pages.is_notice(name)}


def _with_time_zones(given: Mapping[str, str]) -> dict[str, str]:
    """Return the filters with the time zone that the fields of the form do not have: UTC."""
    return {name: _with_time_zone(value) if name in {"since", "until"} else value for name, value in given.items()}


def _with_time_zone(text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return text if time.tzinfo else f"{text}Z"


def _paging(path: str, given: Mapping[str, str], cursor: str | None) -> dict[str, str | None]:
    """Return the paths of the newest page and of the next one, None where there is none or it is shown."""
    first = {name: value for name, value in given.items() if name != "cursor"}
    return {
        "newest": pages.with_query(path, **first) if "cursor" in given else None,
        "older": pages.with_query(path, **first, cursor=cursor) if cursor else None,
    }


def _since(now: datetime, period: timedelta) -> str:
    return (now - period).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rate(count: Counts) -> str:
    """Return how many tasks a minute were queued."""
    rate = count.queued * 60 / count.period.total_seconds()
    return f"{rate:.0f}" if rate >= 10 or not rate else f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"
