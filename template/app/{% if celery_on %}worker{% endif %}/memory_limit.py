"""Refuse to queue tasks while Redis is nearly full: the workers that empty it need memory too, for states and redeliveries."""

import time
from typing import Any

import structlog
from redis.exceptions import NoPermissionError

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker.broker import QueueUnavailable
from app.worker.pipeline import Commands, execute, is_one_server
from app.worker.task import is_in_task

_INTERVAL = 1.0
"""Seconds between two looks at the memory, in each process."""

_logger = structlog.get_logger("app.worker")


class QueueFull(QueueUnavailable):
    """Redis uses more than `CELERY_PUBLISH_MEMORY_LIMIT` of its `maxmemory`. The task was not queued."""


class _Memory:
    """What the process saw last."""

    checked_at = float("-inf")
    full: tuple[str, float] | None = None
    is_forbidden = False


_memory = _Memory()


async def check_memory() -> None:
    """Return if more tasks may be queued here.

    Code that a task runs may always queue more: a task that was refused would fail, or run again, with Redis as full as before.

    Raises:
        QueueFull: a server is nearly full.
        redis.exceptions.RedisError: a server does not answer.
    """
    limit = celery_settings.publish_memory_limit
    if limit >= 1 or is_in_task():
        return
    now = time.monotonic()
    if now - _memory.checked_at >= _INTERVAL:
        # Before the first `await`: of many callers one asks, the others go by the last answer.
        _memory.checked_at = now
        _remember(await _fullest(), limit)
    if _memory.full:
        name, share = _memory.full
        raise QueueFull(f"The task queue is full: {name} uses {share:.0%} of its memory limit; try again later.")


async def _fullest() -> tuple[str, float]:
    info = ("INFO", "memory")
    replies = await execute(Commands(broker=[info], after=[] if is_one_server() else [info]))
    named = [("the broker", replies.broker), ("the result store", replies.after)]
    return max(((name, _share(reply)) for name, part in named for reply in part), key=lambda one: one[1])


def _share(reply: Any) -> float:
    if isinstance(reply, NoPermissionError):
        if not _memory.is_forbidden:
            _memory.is_forbidden = True
            _logger.warning("memory_not_checked", error=error_repr(reply))
        return 0.0
    if isinstance(reply, Exception):
        # The server is down or frozen, as the task's own commands will find.
        return 0.0
    limit = int(reply.get("maxmemory") or 0)
    # With eviction, a full server is the rule, and no reason to refuse a task.
    if not limit or reply.get("maxmemory_policy") != "noeviction":
        return 0.0
    used = int(reply["used_memory"]) - int(reply.get("mem_not_counted_for_evict") or 0)
    return used / limit


def _remember(fullest: tuple[str, float], limit: float) -> None:
    was_full = bool(_memory.full)
    _memory.full = fullest if fullest[1] > limit else None
    if bool(_memory.full) != was_full:
        _logger.warning(
            "queue_full" if _memory.full else "queue_has_room", server=fullest[0], share=round(fullest[1], 3)
        )
