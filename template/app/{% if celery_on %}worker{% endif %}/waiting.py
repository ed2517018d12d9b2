"""Tasks that may not run yet wait in Redis, not in a worker: they keep no worker busy, and count neither as retried nor redelivered.

Before a task starts, one call takes its slots, or moves its message to the waiting list of the rule that has no room. When a task
ends, one call gives back its slots and moves the next message to the front of its queue. A slot belongs to a message: it is free
when that is no longer unacknowledged, or has not been renewed for `CELERY_VISIBILITY_TIMEOUT`. So a killed worker leaves nothing
behind, and `WaitingTasks` in any worker wakes the next.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from billiard.einfo import ExceptionInfo
from celery.app.trace import TraceInfo, trace_ok_t
from celery.exceptions import Ignore, Reject
from celery.states import IGNORED, REJECTED, RETRY
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker import flow_scripts as scripts
from app.worker import messages, revocation
from app.worker.broker import lua_script
from app.worker.flow_control import CALL_HEADER, Rules, client
from app.worker.heartbeat import HeartbeatThread
from app.worker.start import Superseded

RESERVED_FOR = 60
"""Seconds for which a task that was woken has its place reserved, until a worker takes it from its queue."""

_AT_ONCE = 100
_START, _END, _WAKE = (lua_script(text) for text in (scripts.START, scripts.END, scripts.WAKE))
_logger = structlog.get_logger("app.worker")


class WaitingTasks(HeartbeatThread):
    """Wake the tasks whose time has come, and those that wait for the slot of a dead worker."""

    label = "waiting tasks"
    interval = 1.0

    def start(self, consumer: Any) -> None:
        """Start the thread, if tasks may have to wait."""
        if any(
            rules.may_wait for rules in (getattr(task, "rules", None) for task in consumer.app.tasks.values()) if rules
        ):
            super().start(consumer)

    def beat(self, channel: Any) -> None:
        """Wake what is due; the next beat comes when more is."""
        wait = int(_WAKE(channel.client, [channel.unacked_index_key], [*_times(), _AT_ONCE]))
        self.interval = 1.0 if wait < 0 else min(1.0, max(0.02, wait / 1000))


def limit_starts(task: Any, tracer: Callable[..., Any]) -> Callable[..., Any]:
    """Return Celery's tracer of a task, which lets the task wait if a rule has no room."""
    rules: Rules = task.rules

    def trace(task_id: str, args: Any, kwargs: Any, request: dict[str, Any]) -> Any:
        tag = (request.get("properties") or {}).get("delivery_tag")
        if tag is None or request.get("is_eager"):
            return tracer(task_id, args, kwargs, request)
        try:
            names = _names(rules, args, kwargs)
        except Exception as error:  # noqa: BLE001 - the task fails with it
            return tracer(task_id, args, kwargs, {**request, "refusal": error})
        if _is_revoked(task_id):
            # It needs no place, and waits for none.
            try:
                return tracer(task_id, args, kwargs, request)
            finally:
                _end(rules, names, task_id, tag, keeps_unique=False)
        try:
            outcome, *other = _start(rules, names, task_id, tag, request)
        except RedisError as error:
            _logger.warning(
                "task_not_started", task=task.name, task_id=task_id, error=error_repr(error), action="requeued"
            )
            return _end_with(REJECTED, Reject(error_repr(error), requeue=True))
        if outcome == "waiting":
            _logger.debug("task_waits", task=task.name, task_id=task_id)
            return _end_with(IGNORED, Ignore("waits"))
        if outcome == "unroutable":
            request = {**request, "refusal": ValueError("flow control needs a queue of the default exchange")}
        elif outcome != "started":
            request = {**request, "refusal": Superseded(f"{outcome} by {other[0]}" if other else outcome)}
        state: str | None = REJECTED
        try:
            ended = tracer(task_id, args, kwargs, request)
            state = ended.info.state if ended.info else None
            return ended
        finally:
            # The next attempt is the same task.
            _end(rules, names, task_id, tag, keeps_unique=state in {REJECTED, RETRY})

    return trace


def end(request: Any) -> None:
    """Give back what a task has that the worker's main process ends: it was revoked, or its process was killed."""
    rules = getattr(request.task, "rules", None)
    if rules is None:
        return
    try:
        names = _names(rules, request.args, request.kwargs)
    except Exception:  # noqa: BLE001 - it never had a slot
        return
    _end(rules, names, request.id, request.message.delivery_tag, keeps_unique=False)


def _names(rules: Rules, args: Any, kwargs: Any) -> dict[str, str]:
    declared = {"u": rules.unique, "c": rules.concurrency, "t": rules.throttle, "d": rules.debounce}
    return {kind: rules.name(kind, rule, args, kwargs) for kind, rule in declared.items()}


def _is_revoked(task_id: str) -> bool:
    try:
        return revocation.is_listed(task_id) and revocation.is_stored(task_id)
    except RedisError:
        # It is looked up again when it starts.
        return False


def _start(rules: Rules, names: dict[str, str], task_id: str, tag: str, request: dict[str, Any]) -> list[str]:
    number = request.get(CALL_HEADER)
    limits: list[Any] = []
    if rules.concurrency:
        limits += [names["c"], rules.concurrency.limit, 0]
    if rules.throttle:
        limits += [names["t"], rules.throttle.limit, rules.throttle.per]
    if not (limits or names["u"] or (names["d"] and number)):
        return ["started"]
    keys = messages.keys()
    delivery = request.get("delivery_info") or {}
    expires = request.get("expires")
    args = [
        *_times(),
        task_id,
        tag,
        keys.ending(delivery.get("priority")),
        datetime.fromisoformat(expires).timestamp() if isinstance(expires, str) else "",
        names["u"],
        rules.unique.until if rules.unique else "",
        rules.unique.expires if rules.unique else "",
        # A message without a number comes from a program that knows no rules.
        names["d"] if isinstance(number, str) else "",
        number if isinstance(number, str) else "",
        *limits,
    ]
    return [part.decode() for part in _START(client(), [keys.unacked_index, keys.unacked], args)]


def _end(rules: Rules, names: dict[str, str], task_id: str, tag: str, *, keeps_unique: bool) -> None:
    unique = "" if keeps_unique else names["u"]
    waited_for = [names[kind] for kind in "ct" if names[kind]]
    if not (unique or waited_for):
        return
    try:
        _END(client(), [messages.keys().unacked_index], [*_times(), task_id, tag, unique, *waited_for])
    except RedisError as error:
        # The slot is free when the message is acknowledged.
        _logger.warning("slot_not_given_back", task_id=task_id, error=error_repr(error))


def _times() -> list[Any]:
    return [celery_settings.visibility_timeout, RESERVED_FOR]


def _end_with(state: str, error: Exception) -> Any:
    try:
        raise error
    except (Ignore, Reject):
        return trace_ok_t(ExceptionInfo(internal=True), TraceInfo(state, error), None, None)
