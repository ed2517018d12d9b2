"""The routes of dead letters, for operators."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.api.task_access import OperatorDep
from app.core.config.celery import celery_settings
from app.features.tasks.platform import cursors
from app.features.tasks.platform.problems import ProblemRoute, problem_responses
from app.features.tasks.routes import to_json
from app.worker import dead_letters, replay
from app.worker.broker import broker_client, in_thread
from app.worker.dead_letters import DeadLetter
from app.worker.history import Cursor
from app.worker.replay import NotReplayable
from app.worker.serializer import InvalidArguments, check_arguments

MAX_BULK = 100
"""Dead letters that one call changes."""

MAX_SHOWN = 64 * 1024
"""Bytes of a message's body that are shown."""

_NOT_FOUND = "There is no such dead letter: it was replayed or deleted, or dropped as one of the oldest"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

router = APIRouter(
    tags=["dead letters"],
    route_class=ProblemRoute,
    responses=problem_responses(401, 403, 422, 503),
)

LetterId = Annotated[str, Path(pattern=r"^[0-9A-Za-z_]{1,64}$", examples=["9f86d081884c7d659a2feaa0c55ad015"])]
"""The id of a dead letter in a path."""

_Text = Annotated[str | None, Field(min_length=1, max_length=255)]

_EXAMPLE: dict[str, JsonValue] = {
    "letter_id": "9f86d081884c7d659a2feaa0c55ad015",
    "dead_since": "2026-11-27T08:00:00.125000Z",
    "task": "report.render",
    "task_id": "0b0f6a3e-8f8e-4f0e-9a53-5b0a3f3c2d11",
    "queue": "default",
    "error": "TimeoutError",
    "reason": "TimeoutError: the printer does not answer",
    "redacted": False,
    "size": 121,
}


class LetterFilter(BaseModel):
    """Which dead letters. All fields that are given must match; an unknown one is an error, as it would not filter."""

    model_config = ConfigDict(extra="forbid")

    error: _Text = Field(None, description="The type of the error", examples=["TimeoutError"])
    task: _Text = Field(None, description="The name of the task", examples=["report.render"])
    queue: _Text = Field(None, examples=["default"])

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether a dead letter has all that is given."""
        summary = letter.summary
        wanted = ((self.error, summary.error), (self.task, summary.task), (self.queue, summary.queue))
        return all(given is None or given == found for given, found in wanted)


class LetterQuery(LetterFilter):
    """Which dead letters to return."""

    cursor: str | None = Field(None, max_length=cursors.MAX_LENGTH, description="`next_cursor` of the page before")
    limit: int = Field(50, ge=1, le=100)


class Bulk(LetterFilter):
    """Which dead letters to change, the oldest first."""

    limit: int = Field(MAX_BULK, ge=1, le=MAX_BULK)
    dry_run: bool = Field(True, description="Return what would be done, and change nothing")


class BulkReplay(Bulk):
    """Which dead letters to replay."""

    alone: bool = Field(False, description="Replay steps of workflows too, without the steps that follow them")


class LetterSummary(BaseModel):
    """A dead letter without its message. What the message does not have is null."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    letter_id: str
    dead_since: datetime
    task: str | None
    task_id: str | None
    queue: str | None
    error: str = Field(description="The type of the error")
    reason: str = Field(description="The error, up to 500 characters")
    redacted: bool = Field(description="The arguments are shown to nobody, and the letter cannot be replayed")
    size: int = Field(description="Bytes of the message's body")


class LetterGroup(BaseModel):
    """The dead letters of one task and one error."""

    error: str
    task: str | None
    number: int
    oldest: datetime
    newest: datetime


class LetterList(BaseModel):
    """A page of dead letters, the newest first, and the groups of all that match, the largest first."""

    letters: list[LetterSummary]
    groups: list[LetterGroup]
    total: int = Field(description="How many match")
    next_cursor: str | None = Field(description="The `cursor` of the next page, null after the last one")


class LetterDetail(LetterSummary):
    """A dead letter with its message."""

    headers: Any = Field(description="Null if they are nested too deeply to be shown")
    properties: Any
    content_type: str | None
    content_encoding: str | None
    arguments: list[Any] | None = Field(description="Null if redacted, larger than 64 KB, or not a task's")
    keyword_arguments: dict[str, Any] | None
    body: str | None = Field(description="The body as base64, if it has no arguments and at most 64 KB")


class Replayed(BaseModel):
    """The task that has the message of a dead letter again."""

    letter_id: str
    task_id: str | None = Field(description="The id of the new task, null in a dry run or if the letter was deleted")


class Refused(BaseModel):
    """A dead letter that cannot be replayed."""

    letter_id: str
    reason: str


class LettersChanged(BaseModel):
    """What was done, or would be done. Call again while `remaining` is not 0."""

    dry_run: bool
    done: list[Replayed]
    refused: list[Refused]
    remaining: int = Field(description="Other dead letters that match and were not looked at")


@router.get("/dead-letters")
async def list_dead_letters(query: Annotated[LetterQuery, Query()], _: OperatorDep) -> LetterList:
    """Return messages whose tasks have failed for good: redelivered too often, out of retries, or impossible to run."""
    after = cursors.decode(query.cursor)
    letters = [letter for letter in await in_thread(_letters) if query.matches(letter)]
    rest = [letter for letter in letters if after is None or _position(letter) < (after.time, after.task_id)]
    page = rest[: query.limit]
    is_last = len(rest) <= query.limit
    cursor = None if is_last else cursors.encode(Cursor(*_position(page[-1])))
    summaries = [LetterSummary(**_summary(letter)) for letter in page]
    return LetterList(letters=summaries, groups=_groups(letters), total=len(letters), next_cursor=cursor)


@router.get("/dead-letters/{letter_id}", responses=problem_responses(not_found=_NOT_FOUND))
async def get_dead_letter(letter_id: LetterId, _: OperatorDep) -> LetterDetail:
    """Return a dead letter with its message. The arguments of a task with `redact_arguments` are not shown."""
    found = await in_thread(_with_client, dead_letters.find, letter_id)
    if found is None:
        raise _not_found(letter_id)
    return _detail(*found)


@router.post(
    "/dead-letters/{letter_id}/replay", status_code=202, responses=problem_responses(409, not_found=_NOT_FOUND)
)
async def replay_dead_letter(
    letter_id: LetterId,
    _: OperatorDep,
    alone: Annotated[bool, Query(description="Replay a step of a workflow, without the steps that follow it")] = False,
) -> Replayed:
    """Queue the message again, as a new task. The dead letter is deleted in the same step: of two replays one queues it.

    409: it is no message of a task, its arguments are redacted, its queue does not exist, or it is a step of a workflow.
    """
    try:
        task_id = await in_thread(_with_client, replay.replay, letter_id, alone=alone)
    except NotReplayable as error:
        raise HTTPException(409, str(error)) from error
    if task_id is None:
        raise _not_found(letter_id)
    return Replayed(letter_id=letter_id, task_id=task_id)


@router.delete("/dead-letters/{letter_id}", status_code=204, responses=problem_responses(not_found=_NOT_FOUND))
async def delete_dead_letter(letter_id: LetterId, _: OperatorDep) -> None:
    """Delete a dead letter with its message."""
    if not await in_thread(_with_client, dead_letters.delete, letter_id):
        raise _not_found(letter_id)


@router.post("/dead-letters/replay", responses=problem_responses(400))
async def replay_dead_letters(which: BulkReplay, _: OperatorDep) -> LettersChanged:
    """Replay the dead letters that match, the oldest first, up to `limit` and as many as fit into the time of a request."""
    change: Callable[..., object] = replay.check if which.dry_run else replay.replay
    return await in_thread(_change, which, functools.partial(change, alone=which.alone))


@router.post("/dead-letters/delete", responses=problem_responses(400))
async def delete_dead_letters(which: Bulk, _: OperatorDep) -> LettersChanged:
    """Delete the dead letters that match, the oldest first, up to `limit`."""
    return await in_thread(_change, which, _keep if which.dry_run else dead_letters.delete)


def _keep(_client: Any, _letter_id: str) -> bool:
    return True


def _change(which: Bulk, change: Callable[[Any, str], object]) -> LettersChanged:
    # The request is answered with an error after that time, and should not have been half done then.
    deadline = time.monotonic() + 0.6 * celery_settings.publish_timeout
    done: list[Replayed] = []
    refused: list[Refused] = []
    with broker_client() as client:
        letters = [letter for letter in reversed(dead_letters.letters(client)) if which.matches(letter)]
        looked_at = 0
        for letter in letters:
            # Those that are refused do not count: they stay, and would be the oldest ones again in the next call.
            if len(done) == which.limit or time.monotonic() > deadline:
                break
            looked_at += 1
            try:
                outcome = change(client, letter.letter_id)
            except NotReplayable as error:
                refused.append(Refused(letter_id=letter.letter_id, reason=str(error)))
            else:
                # Nothing: another operator was faster.
                if outcome:
                    task_id = outcome if isinstance(outcome, str) else None
                    done.append(Replayed(letter_id=letter.letter_id, task_id=task_id))
    return LettersChanged(dry_run=which.dry_run, done=done, refused=refused, remaining=len(letters) - looked_at)


def _with_client(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with broker_client() as client:
        return function(client, *args, **options)


def _letters() -> list[DeadLetter]:
    with broker_client() as client:
        # Of several with the same time in the order of their ids, as cursors need it.
        return sorted(dead_letters.letters(client), key=_position, reverse=True)


def _position(letter: DeadLetter) -> tuple[int, str]:
    return (letter.time - _EPOCH) // timedelta(microseconds=1), letter.letter_id


def _groups(letters: Sequence[DeadLetter]) -> list[LetterGroup]:
    found: dict[tuple[str, str | None], list[datetime]] = defaultdict(list)
    for letter in letters:
        found[letter.summary.error, letter.summary.task].append(letter.time)
    groups = [
        LetterGroup(error=error, task=task, number=len(times), oldest=min(times), newest=max(times))
        for (error, task), times in found.items()
    ]
    return sorted(groups, key=lambda group: (-group.number, group.error, group.task or ""))


def _summary(letter: DeadLetter) -> dict[str, Any]:
    summary = letter.summary
    return {
        "letter_id": letter.letter_id,
        "dead_since": letter.time,
        "task": to_json(summary.task),
        "task_id": to_json(summary.task_id),
        "queue": to_json(summary.queue),
        "error": to_json(summary.error),
        "reason": to_json(summary.reason),
        "redacted": summary.redacted,
        "size": summary.size,
    }


def _detail(letter: DeadLetter, message: dict[str, Any]) -> LetterDetail:
    headers = message["headers"]
    arguments = keyword_arguments = body = None
    if letter.summary.redacted:
        hidden = dict.fromkeys(("argsrepr", "kwargsrepr"), dead_letters.HIDDEN)
        headers = {**headers, **hidden} if isinstance(headers, dict) else None
    elif letter.summary.size <= MAX_SHOWN:
        content = _shown(replay.decoded(message["body"]))
        if content is None:
            body = message["body"]
        else:
            arguments, keyword_arguments, _ = content
    return LetterDetail(
        **_summary(letter),
        headers=_shown(headers),
        properties=_shown(message["properties"]),
        content_type=to_json(message["content-type"]),
        content_encoding=to_json(message["content-encoding"]),
        arguments=arguments,
        keyword_arguments=keyword_arguments,
        body=body,
    )


def _shown(value: Any) -> Any:
    """Return what a response can contain of a message, which may be the reason why no worker could run it."""
    try:
        check_arguments(value=value)
    except InvalidArguments:
        return None
    return to_json(value)


def _not_found(letter_id: str) -> HTTPException:
    return HTTPException(404, f"There is no dead letter {letter_id}: it was replayed or deleted, or has expired.")
