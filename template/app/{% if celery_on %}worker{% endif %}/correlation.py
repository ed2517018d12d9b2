"""What connects a task with the request that queued it: the request's id and its traceparent, for its logs and its children.

Both are fields of the log's context (`app/api/request_context.py` sets them), travel in the message's headers of the same names, and
are fields of the log's context again while the task runs: so what it queues, and its retries, have them too. The user travels
as the task's owner (`owners`).
"""

from collections.abc import Mapping
from typing import Any

import structlog

from app.worker import owners

_FIELDS = ("request_id", "traceparent")
_MAX_LENGTH = 128


def headers() -> dict[str, str]:
    """Return the headers of what is queued here."""
    context = structlog.contextvars.get_contextvars()
    return {name: context[name] for name in _FIELDS if isinstance(context.get(name), str)}


def fields(request: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of the log's context while a task runs."""
    found = {name: request.get(name) for name in (*_FIELDS, owners.HEADER)}
    return {name: value for name, value in found.items() if isinstance(value, str) and len(value) <= _MAX_LENGTH}
