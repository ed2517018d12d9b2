"""Run a task again that has failed or was revoked: its message is stored in the call that stores this state, next to its record.

The message is stored for as long as the record, up to `CELERY_RECORDS_MESSAGE_MAX_BYTES`; for one that may not be stored, the reason.
A task that succeeds costs nothing. The retry is a new task, whose record names the first one; it is queued once, however often
somebody asks for it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import current_app, states
from kombu.utils.json import dumps, loads

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker import history, owners, payload_versions
from app.worker.broker import result_key, results_client
from app.worker.history import TaskRecord
from app.worker.idempotency import Key
from app.worker.record_scripts import MESSAGE_SUFFIX
from app.worker.records import REPLAY_HEADER, record_key
from app.worker.typing import Signature

_FOLLOWED_BY = ("chain", "chord", "callbacks", "errbacks")
_NOT_REPEATED = {owners.HEADER, REPLAY_HEADER, payload_versions.HEADER, "request_id", "traceparent", "debounce"}
"""Headers that the retry gets from elsewhere, or must not have."""

_MAX_HEADER = 1000
_HIDDEN = "(hidden)"
"""What `logs` has in a message instead of the arguments that a task redacts."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_REASONS = {
    "redacted": "its arguments are never stored, as the task has redact_arguments=True",
    "too large": "its arguments are larger than CELERY_RECORDS_MESSAGE_MAX_BYTES, and were not stored",
    "not JSON": "it changed its arguments to something that JSON does not have, and they were not stored",
    "workflow": "others of its workflow follow it or wait for it; queue the workflow again",
}


class RetryRefused(Exception):
    """A task cannot be run again; the text has the reason."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The record of a task, and its message if one is stored."""

    record: TaskRecord
    message: dict[str, Any] | None


def message(request: Any) -> str:
    """Return what is stored of a task that ends as FAILURE or REVOKED, given its request: its message, or the reason why not.

    The text is empty for what no worker has run: a task that was cancelled while it waited, and the steps after a failed one.
    """
    delivery = (request and request.delivery_info) or {}
    queue, name = delivery.get("routing_key"), getattr(request, "task", None)
    task: Any = current_app.tasks.get(name) if isinstance(name, str) else None
    if not queue or task is None:
        return ""
    if is_redacted(task, request.get("argsrepr")):
        return _not_stored("redacted")
    if any(request.get(follower) for follower in _FOLLOWED_BY):
        return _not_stored("workflow")
    headers = request.headers or {}
    stored = {
        "task": name,
        "args": request.args,
        "kwargs": request.kwargs,
        "queue": queue,
        "priority": delivery.get("priority"),
        "version": request.get(payload_versions.HEADER),
        "timelimit": request.timelimit,
        "ignore_result": bool(request.ignore_result),
        "headers": {key: value for key, value in headers.items() if _is_repeated(key, value)},
    }
    try:
        text = str(dumps(stored))
    except (TypeError, ValueError, RecursionError):
        return _not_stored("not JSON")
    return text if len(text) <= celery_settings.records_message_max_bytes else _not_stored("too large")


def is_redacted(task: Any, argsrepr: object) -> bool:
    """Return whether the arguments of a task may not be stored: it says so now, or did when it was queued."""
    return bool(getattr(task, "redact_arguments", False)) or argsrepr == _HIDDEN


def read(task_ids: Sequence[str]) -> list[Ended | None]:
    """Return what is stored of each of these tasks, or None for one without a record.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    if not task_ids:
        return []
    keys = [key for task_id in task_ids for key in (record_key(task_id), message_key(task_id))]
    values = results_client().mget(keys)
    records = [history.parse(task_id, text) for task_id, text in zip(task_ids, values[::2], strict=True)]
    return [
        Ended(record, _parsed(text)) if record else None for record, text in zip(records, values[1::2], strict=True)
    ]


def signature(ended: Ended) -> Signature[Any]:
    """Return the call that runs a task again.

    Raises:
        RetryRefused: the task has not ended or has succeeded, its arguments are not stored, or this release cannot run it.
    """
    record, stored = ended.record, ended.message
    if record.state not in states.PROPAGATE_STATES:
        raise RetryRefused(f"Task {record.task_id} is {record.state}; only one that is FAILURE or REVOKED runs again.")
    task: Any = current_app.tasks.get(record.name or "")
    if task is None:
        raise _refused(record, f"this release has no task {record.name}")
    if is_redacted(task, record.args):
        raise _refused(record, _REASONS["redacted"])
    if stored is None:
        raise _refused(record, "its message is not stored: it expired, or no worker has taken it from its queue yet")
    if "not_stored" in stored:
        raise _refused(record, _REASONS.get(str(stored["not_stored"]), "its message was not stored"))
    try:
        args, kwargs = _arguments(task, stored)
        options = _options(record, stored)
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(record, f"its message cannot be used: {error}") from error
    call: Signature[Any] = task.signature(args, kwargs, **options)
    return call


def key(record: TaskRecord) -> Key:
    """Return the key with which a task is queued again once, for as long as its record."""
    # Another task may get the same id when the result has expired.
    queued = (record.queued - _EPOCH) // timedelta(microseconds=1)
    return Key(f"retry/{record.task_id}/{record.attempt}/{queued}", "retry", celery_settings.records_expire)


def message_key(task_id: str) -> bytes:
    """Return the key of a task's message."""
    return result_key(task_id) + MESSAGE_SUFFIX


def _arguments(task: Any, stored: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs, version = list(stored["args"] or ()), dict(stored["kwargs"] or {}), stored["version"] or 1
    if task.version is None or version == task.version:
        return args, kwargs
    if version > task.version:
        raise ValueError(f"a newer release queued it, with version {version}")
    try:
        return payload_versions.upgraded(task, version, args, kwargs)
    except Exception as error:
        # What an upgrade function raises.
        raise ValueError(error_repr(error)) from error


def _options(record: TaskRecord, stored: dict[str, Any]) -> dict[str, Any]:
    headers = {**stored["headers"], REPLAY_HEADER: record.task_id}
    if record.owner:
        headers[owners.HEADER] = record.owner
    hard, soft = stored["timelimit"] or (None, None)
    options = {
        "queue": stored["queue"],
        "priority": stored["priority"],
        "time_limit": hard,
        "soft_time_limit": soft,
        "ignore_result": stored["ignore_result"] or None,
    }
    return {"headers": headers, **{name: value for name, value in options.items() if value is not None}}


def _is_repeated(name: str, value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_HEADER and name not in _NOT_REPEATED


def _not_stored(reason: str) -> str:
    return json.dumps({"not_stored": reason})


def _refused(record: TaskRecord, reason: str) -> RetryRefused:
    return RetryRefused(f"Task {record.task_id} cannot run again: {reason}.")


def _parsed(text: bytes | None) -> dict[str, Any] | None:
    try:
        stored = loads(text) if text else None
    except ValueError:
        # Another program wrote it.
        return None
    return stored if isinstance(stored, dict) else None
