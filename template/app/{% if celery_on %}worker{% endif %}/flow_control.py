"""Flow control: which calls of a task are queued, how many run at a time, and when they start. docs/flow-control.md compares the rules.

    @celery_app.task(unique=Unique("report_id"), concurrency=Concurrency(3, "tenant"))

`unique`, `rate` and `debounce` are judged where a task is queued, here; `concurrency`, `throttle` and `debounce` before it starts, in
`waiting`. A task without rules makes no further call to Redis.
"""

import asyncio
import functools
import hashlib
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import redis
import structlog
from celery import current_app
from celery.result import AsyncResult
from kombu.utils.json import dumps
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from app.core.config.celery import celery_settings
from app.core.config.redis_url import for_redis_py
from app.core.logging import error_repr
from app.worker import flow_scripts as scripts
from app.worker import messages
from app.worker.broker import in_thread
from app.worker.status import read_status

Key = str | Callable[..., object] | None
"""What a rule counts separately: the name of a parameter of the task, or a function of its arguments; None is all its calls."""

CALL_HEADER = "debounce"
"""The message's header with the number of the call, for `Debounce`."""

MAX_LIMIT = 10_000
MAX_SECONDS = 30 * 86400
_PUBLISHED_WITHIN = 60
"""Seconds after which `unique` is free again if the process that was queueing the task has died."""

_WAIT_FOR_OTHER = 0.5
_POLL_INTERVAL = 0.05
_logger = structlog.get_logger("app.worker")


@dataclass(frozen=True)
class Unique:
    """At most one call is queued or running per key. `enqueue` and `delay` return a `Duplicate` for another one."""

    key: Key = None
    until: Literal["finished", "started"] = "finished"
    """`started`: another call may be queued as soon as this one runs."""
    expires: int = 86400
    """Seconds after which a task that has not ended, and was not started meanwhile, counts as lost."""

    def __post_init__(self) -> None:
        _check(self, expires=(1, MAX_SECONDS))


@dataclass(frozen=True)
class Concurrency:
    """At most `limit` calls run at a time per key. Others wait, first come, first served, and keep no worker busy."""

    limit: int
    key: Key = None
    scope: str | None = None
    """A name under which several tasks share the limit; None is the task's own."""

    def __post_init__(self) -> None:
        _check(self, limit=(1, 1000))


@dataclass(frozen=True)
class Throttle:
    """At most `limit` calls start in any `per` seconds per key. Others wait, first come, first served."""

    limit: int
    per: float
    key: Key = None
    scope: str | None = None
    """A name under which several tasks share the limit; None is the task's own."""

    def __post_init__(self) -> None:
        _check(self, limit=(1, MAX_LIMIT), per=(0.1, 86400))


@dataclass(frozen=True)
class Rate:
    """At most `limit` calls are queued in any `per` seconds per key. `enqueue` and `delay` raise `RateLimited` for others."""

    limit: int
    per: float
    key: Key = None
    scope: str | None = None
    """A name under which several tasks share the limit; None is the task's own."""

    def __post_init__(self) -> None:
        _check(self, limit=(1, MAX_LIMIT), per=(0.1, 86400))


@dataclass(frozen=True)
class Debounce:
    """Only the last of several calls per key runs, when there was no other for `period` seconds. The others end as REVOKED."""

    period: float
    key: Key = None
    max_wait: float | None = None
    """Seconds after the first call when one runs even if more calls follow."""

    def __post_init__(self) -> None:
        _check(self, period=(0.1, 86400), max_wait=(self.period, MAX_SECONDS))


class NotQueued(Exception):
    """A task was not queued because of a limit. The same call may be accepted after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(NotQueued):
    """The task was called as often as its `rate` allows."""


class Duplicate(AsyncResult):
    """The result of a task that was queued before, under the same key of `unique`: the call that returns it queued nothing."""


class Rules:
    """The rules of one task."""

    def __init__(self, task: Any) -> None:
        """Read the rules that the task declares.

        Raises:
            TypeError: an option is not of its class.
            ValueError: a key is not a parameter of the task.
        """
        self.task = task
        self.unique: Unique | None = _declared(task, "unique", Unique)
        self.concurrency: Concurrency | None = _declared(task, "concurrency", Concurrency)
        self.throttle: Throttle | None = _declared(task, "throttle", Throttle)
        self.rate: Rate | None = _declared(task, "rate", Rate)
        self.debounce: Debounce | None = _declared(task, "debounce", Debounce)
        self._signature = inspect.signature(task.run)
        if not isinstance(inspect.getattr_static(task, "run"), staticmethod):
            # Without `self`.
            parameters = list(self._signature.parameters.values())[1:]
            self._signature = self._signature.replace(parameters=parameters)
        for rule in (self.unique, self.concurrency, self.throttle, self.rate, self.debounce):
            if rule is not None and isinstance(rule.key, str) and rule.key not in self._signature.parameters:
                raise ValueError(f"{task.name}: the key {rule.key!r} of {rule} is not one of its parameters.")

    @property
    def are_judged_when_queued(self) -> bool:
        """Whether a call may be refused."""
        return bool(self.unique or self.rate or self.debounce)

    @property
    def may_wait(self) -> bool:
        """Whether a message may have to wait."""
        return bool(self.concurrency or self.throttle or self.debounce)

    def name(self, kind: str, rule: Any, args: Any, kwargs: Any) -> str:
        """Return the name of a rule in Redis for these arguments, or "" if the task does not have the rule.

        Raises:
            TypeError: the task cannot be called with the arguments.
            Exception: what the function that makes the key raises.
        """
        if rule is None:
            return ""
        scope = getattr(rule, "scope", None) or self.task.name
        # A digest: a key may be personal data, of any length.
        text = dumps(self._value(rule.key, args or (), kwargs or {}))
        digest = hashlib.sha256(f"{scope}\n{text}".encode(errors="surrogatepass")).hexdigest()
        return f"flow:{kind}:{scope[:100]}:{digest[:32]}"

    def _value(self, key: Key, args: Any, kwargs: Any) -> object:
        if callable(key):
            return key(*args, **kwargs)
        if key is None:
            return None
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments[key]


def publish(rules: Rules, send: Callable[..., Any], args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
    """Return what `send` returns, which gets the options, if a call may be queued; or a `Duplicate`.

    Raises:
        RateLimited: the task was called as often as its `rate` allows.
        NotQueued: another process is queueing the same task just now, and may fail.
        ValueError: the task is a step of a workflow, and what waits for it would wait for ever if it was not queued.
        redis.exceptions.RedisError: Redis does not answer.
    """
    names = [
        rules.name(kind, rule, args, kwargs)
        for kind, rule in (("u", rules.unique), ("r", rules.rate), ("d", rules.debounce))
    ]
    if options.get("chain") is not None or any(options.get(name) for name in ("chord", "group_id", "link")):
        raise ValueError(
            f"{rules.task.name} cannot be a step of a workflow, as its calls may be refused: queue it in the last step's code."
        )
    task_id = options["task_id"]
    number = _admit(rules, names, task_id)
    if isinstance(number, Duplicate):
        return number
    options["headers"] = {**(options.get("headers") or {}), CALL_HEADER: number}
    unique, rate, _ = names
    try:
        result = send(**options)
    except BaseException:
        if unique or rate:
            _try(("EVAL", scripts.FORGET, 2, unique, rate, task_id, ""), "task_not_forgotten", task_id)
        raise
    if rules.unique:
        # It is queued: after an error the caller would queue it twice. When it starts, it is confirmed again.
        _try(("EVAL", scripts.CONFIRM, 1, unique, task_id, rules.unique.expires), "unique_not_confirmed", task_id)
    if unique or rate:
        messages.undo_if_not_sent(("EVAL", scripts.FORGET, 2, unique, rate, task_id, "1"))
    return result


def _admit(rules: Rules, names: list[str], task_id: str) -> Any:
    """Return the number of the call, or a `Duplicate`."""
    rate, debounce = rules.rate, rules.debounce
    limits: list[object] = [rate.limit, rate.per] if rate else ["", ""]
    limits += [debounce.period, debounce.max_wait or ""] if debounce else ["", ""]
    ended, waited = "", 0.0
    while True:
        outcome, detail = (
            part.decode()
            for part in call(("EVAL", scripts.ADMIT, 3, *names, task_id, ended, _PUBLISHED_WITHIN, *limits))
        )
        if outcome == "admitted":
            return detail
        if outcome == "limited" and rate:
            message = f"{rules.task.name} may be called {rate.limit} times in {rate.per:g} seconds; try again later."
            raise RateLimited(message, max(0.0, float(detail)))
        if not detail.startswith("?"):
            if not _has_ended(detail):
                _logger.info("task_not_queued", task=rules.task.name, duplicate_of=detail)
                return Duplicate(detail, app=current_app)
            ended = detail
        elif waited >= _WAIT_FOR_OTHER:
            raise NotQueued(f"{rules.task.name} is being queued by another process.", 1)
        else:
            # It is about to be queued, or its process has died.
            _sleep(_POLL_INTERVAL)
            waited += _POLL_INTERVAL


def call(command: tuple[Any, ...]) -> Any:
    """Return the broker's reply to a command; without blocking the event loop, in what `enqueue` calls on it.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    if messages.is_on_loop():
        return messages.run(command)
    connected: Any = client()
    return connected.execute_command(*command)


@functools.lru_cache(maxsize=1)
def client() -> "redis.Redis":
    """Return a client of the broker's database that threads can share; kombu's are for one thread each."""
    return redis.Redis.from_url(
        for_redis_py(celery_settings.broker_url.get_secret_value()),
        socket_timeout=5,
        socket_connect_timeout=2,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        client_name="app",
    )


def _has_ended(task_id: str) -> bool:
    status = messages.wait_for(in_thread(read_status, task_id)) if messages.is_on_loop() else read_status(task_id)
    return status is not None and status.ready


def _sleep(seconds: float) -> None:
    if messages.is_on_loop():
        messages.wait_for(asyncio.sleep(seconds))
    else:
        threading.Event().wait(seconds)


def _try(command: tuple[Any, ...], event: str, task_id: str) -> None:
    try:
        call(command)
    except RedisError as error:
        _logger.warning(event, task_id=task_id, error=error_repr(error))


def _declared(task: Any, option: str, kind: type) -> Any:
    rule = getattr(task, option, None)
    if rule is not None and not isinstance(rule, kind):
        raise TypeError(f"{task.name}: {option}={rule!r} must be a {kind.__name__}.")
    return rule


def _check(rule: Any, **bounds: tuple[float, float]) -> None:
    for name, (lowest, highest) in bounds.items():
        value = getattr(rule, name)
        if value is not None and not lowest <= value <= highest:
            raise ValueError(f"{type(rule).__name__}: {name}={value} must be {lowest} to {highest}.")


def has_rules(task: Any) -> bool:
    """Return whether a task declares a rule."""
    return any(getattr(task, option, None) for option in ("unique", "concurrency", "throttle", "rate", "debounce"))


def is_judged_when_queued(name: str) -> bool:
    """Return whether calls of the task of that name may be refused."""
    rules = getattr(current_app.tasks.get(name), "rules", None)
    return rules is not None and rules.are_judged_when_queued
