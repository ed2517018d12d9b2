"""The owner of a task. What the API queues for a user has the user as its owner, and so does all that such a task queues.

The owner travels in the message's header `owner`, and is stored next to the task's state for as long as that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from app.worker.broker import result_key

HEADER = "owner"

PRIORITY = 3
"""Priority of tasks that have an owner. Scheduled tasks have 0 and overtake them in every queue: Redis delivers 0 first."""

SUFFIX = b"/owner"
"""The end of a key of an owner, after that of the task: with a character that the id of no task has in GET /task."""

_owner: ContextVar[str | None] = ContextVar("task_owner", default=None)


@contextmanager
def owned_by(owner: str | None) -> Iterator[None]:
    """Set the owner of what the block queues; None leaves it to the task that runs."""
    token = _owner.set(owner or _owner.get())
    try:
        yield
    finally:
        _owner.reset(token)


def owner_of(request: Any) -> str | None:
    """Return the owner in a task's request."""
    found = (request or {}).get(HEADER)
    return found if isinstance(found, str) and found else None


def current_owner(request: Any) -> str | None:
    """Return the owner of what is queued here, in the task of that request or outside of any task."""
    return _owner.get() or owner_of(request)


def owner_key(task_id: str) -> bytes:
    """Return the key of a task's owner: among those of results, which every user of the result store's Redis may use."""
    return result_key(task_id) + SUFFIX
