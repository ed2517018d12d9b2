"""Read the records of tasks: one by its id, or the newest that match a filter, page by page."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from app.core.config.celery import celery_settings
from app.worker.broker import result_key, results_client
from app.worker.record_scripts import FIELDS, PAGE
from app.worker.records import record_key
from app.worker.status import UNTRACKED

STATES = ("PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED", UNTRACKED)
"""The states of records. A task's own state, such as PROGRESS, is its progress in the state STARTED."""

MAX_LIMIT = 100
"""Records of one page."""

_LOOKED_AT = 1000
"""Records that one call of Redis looks at, which takes about 2 ms."""

_CALLS = 5
"""Calls for a page. One that found too few records then ends early: its cursor continues the search."""

_LAST = 2**53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a task. `error` is None while it runs, and after a success."""

    number: int
    started: datetime | None
    finished: datetime | None
    error: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What is known of a task; see `app.worker.records`. Texts that are unknown are None."""

    task_id: str
    state: str
    queued: datetime
    started: datetime | None
    finished: datetime | None
    next_retry: datetime | None
    attempt: int
    """The number of the last attempt; 0 before the first."""
    redeliveries: int
    worker: str | None
    error: dict[str, str] | None
    progress: Any
    """`{"state": …, "value": …}`, as the task stored it last."""
    attempts: list[Attempt]
    """The last attempts, the newest last."""
    name: str | None
    queue: str | None
    owner: str | None
    args: str | None
    kwargs: str | None
    parent: str | None
    root: str | None
    """The first task of its workflow; None for that task itself."""
    group: str | None
    replay_of: str | None
    eta: str | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records to return. `since` and `until` are times at which tasks were queued; None matches all."""

    state: str | None = None
    name: str | None = None
    queue: str | None = None
    owner: str | None = None
    parent: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """The record after which a page begins."""

    time: int
    task_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, the last queued first, and where to continue; `next` is None after the last page."""

    records: list[TaskRecord]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks were queued in a period, and how many of these are in each state now."""

    period: timedelta
    queued: int
    by_state: dict[str, int]


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed tasks with the same name and type of error."""

    error: str
    name: str | None
    number: int
    newest: TaskRecord


def read(task_id: str) -> TaskRecord | None:
    """Return the record of a task, or None if it has none.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = results_client().get(record_key(task_id))
    return parse(task_id, text)


def children(record: TaskRecord, limit: int = MAX_LIMIT) -> list[TaskRecord]:
    """Return the tasks that a task has queued, and those that followed it in a workflow; the last queued first.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    found, _ = _call([f"root/{record.root or record.task_id}"], Filter(parent=record.task_id), None, limit)
    return found


def workflow(root_id: str, limit: int = MAX_LIMIT) -> list[TaskRecord]:
    """Return the tasks below the first task of a workflow, at any depth; the last queued first.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    found, _ = _call([f"root/{root_id}"], Filter(), None, limit)
    return found


def counts(*periods: timedelta) -> list[Counts]:
    """Return how many tasks were queued in each of these periods until now, and in which state they are.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    client = results_client()
    index = result_key("/records/").decode()
    seconds, microseconds = client.time()
    oldest = client.zrange(f"{index}all", 0, 0, withscores=True)
    # The indexes of states may have entries of records that were dropped.
    earliest = int(oldest[0][1]) if oldest else 0
    now = seconds * 10**6 + microseconds
    indexed = [state for state in STATES if state != "SUCCESS"]
    with client.pipeline(transaction=False) as pipe:
        for period in periods:
            since = max(now - period // timedelta(microseconds=1), earliest)
            for key in ("all", *(f"state/{state}" for state in indexed)):
                pipe.zcount(f"{index}{key}", since, "+inf")
        numbers = pipe.execute()
    found = []
    for period in periods:
        queued, *of_states = numbers[: len(STATES)]
        numbers = numbers[len(STATES) :]
        by_state = dict(zip(indexed, of_states, strict=True))
        # A task may have changed its state between two commands.
        found.append(Counts(period, queued, by_state | {"SUCCESS": max(0, queued - sum(of_states))}))
    return found


def failures(period: timedelta, pages: int = 5) -> list[FailureGroup]:
    """Return the newest tasks that have failed of those queued in a period, by error and name; the most frequent first.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    found: dict[tuple[str, str | None], list[TaskRecord]] = {}
    after, which = None, Filter(state="FAILURE", since=datetime.now(UTC) - period)
    for _ in range(pages):
        records = page(which, after)
        for record in records.records:
            error = (record.error or {}).get("type") or "unknown"
            found.setdefault((error, record.name), []).append(record)
        after = records.next
        if after is None:
            break
    groups = [FailureGroup(error, name, len(records), records[0]) for (error, name), records in found.items()]
    return sorted(groups, key=lambda group: (-group.number, group.error, group.name or ""))


def page(which: Filter, after: Cursor | None = None, limit: int = MAX_LIMIT) -> Page:
    """Return the newest records that match.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    fields = {"name": which.name, "queue": which.queue, "owner": which.owner}
    indexes = [f"{field}/{value}" for field, value in fields.items() if value is not None]
    if which.state and which.state != "SUCCESS":
        indexes.append(f"state/{which.state}")
    found: list[TaskRecord] = []
    for _ in range(_CALLS):
        more, after = _call(indexes or ["all"], which, after, limit - len(found))
        found += more
        if after is None or len(found) >= limit:
            break
    return Page(found, after)


def _call(
    indexes: Sequence[str], which: Filter, after: Cursor | None, limit: int
) -> tuple[list[TaskRecord], Cursor | None]:
    client = results_client()
    since = _microseconds(which.since) if which.since else 0
    until = min(_microseconds(which.until) if which.until else _LAST, after.time if after else _LAST)
    args: list[Any] = [result_key("/")[:-1], since, until, after.task_id if after and after.time == until else ""]
    args += [limit, _LOOKED_AT]
    args += [value or "" for value in (which.state, which.name, which.queue, which.owner, which.parent)]
    args.append(celery_settings.records_expire)
    last, time, found = PAGE(client, [result_key(f"/records/{index}") for index in indexes], args)
    return list(_records(found)), Cursor(int(time), last.decode()) if last else None


def _records(found: Sequence[bytes]) -> Iterable[TaskRecord]:
    for task_id, text in zip(found[::2], found[1::2], strict=True):
        record = parse(task_id.decode(), text)
        if record is not None:
            yield record


def parse(task_id: str, text: bytes | None) -> TaskRecord | None:
    """Return the record of a task as it is stored, or None if that is none."""
    lines = (text or b"").decode(errors="replace").split("\n")
    if len(lines) < len(FIELDS):
        return None
    # A later release may have added some.
    field = dict(zip(FIELDS, lines, strict=False))
    try:
        queued = _time(field["queued"])
        if queued is None:
            return None
        texts = ("worker", "name", "queue", "owner", "args", "kwargs", "parent", "root", "group", "replay_of", "eta")
        error, started = _json(field["error"]), _time(field["started"])
        finished, number = _time(field["finished"]), int(field["attempt"] or 0)
        attempts = [_attempt(json.loads(one)) for one in field["attempts"].split("\t") if one]
        if number and not (attempts and (attempts[-1].number, attempts[-1].started) == (number, started)):
            attempts.append(Attempt(number, started, finished, error))
        return TaskRecord(
            task_id=task_id,
            state=field["state"],
            queued=queued,
            started=started,
            finished=finished,
            next_retry=_time(field["next_retry"]),
            attempt=number,
            redeliveries=int(field["redeliveries"] or 0),
            error=error,
            progress=_json(field["progress"]),
            attempts=attempts,
            **{name: field[name] or None for name in texts},
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        # Written by another program, or by another release.
        return None


def _attempt(values: dict[str, Any]) -> Attempt:
    return Attempt(values["attempt"], _time(values["started"]), _time(values["finished"]), values["error"])


def _json(text: str) -> Any:
    return json.loads(text) if text else None


def _time(value: str | int | None) -> datetime | None:
    return _EPOCH + timedelta(microseconds=int(value)) if value else None


def _microseconds(time: datetime) -> int:
    # Lua's numbers and those of sorted sets are exact up to there.
    return min((time - _EPOCH) // timedelta(microseconds=1), _LAST)
