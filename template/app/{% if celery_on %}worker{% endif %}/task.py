"""The base class of every task."""

import functools
import inspect
import logging
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from celery import Task, current_app, current_task, states
from celery.exceptions import Reject
from celery.utils import uuid
from kombu.exceptions import EncodeError
from pydantic import BaseModel

from app.worker import correlation, eager_mode, event_loop, flow_control, logs, owners, payload_versions, start, waiting
from app.worker.records import REPLAY_HEADER
from app.worker.redelivery import return_rejection
from app.worker.serializer import InvalidArguments, check_arguments
from app.worker.time_limits import complete_limits

_request: ContextVar[Any] = ContextVar("task_request", default=None)

_LIMITS = ("time_limit", "soft_time_limit")
_RENAMED = {"hides_arguments": "redact_arguments", "tells_last_success": "record_last_success"}
"""Options of releases before 0.6.0. Celery ignores unknown ones, and Flower would show the arguments."""
_POSITIONAL = ("task_id", "producer", "link", "link_error", "shadow")
"""The parameters of Celery's `apply_async` after `args` and `kwargs`."""


def is_in_task() -> bool:
    """Return whether a task runs this code, be its body `def` or `async def`."""
    return bool(_request.get() or current_app.current_worker_task)


def current_request() -> Any:
    """Return the request of the task that runs this code, be its body `def` or `async def`, or None."""
    return _request.get() or (current_task.request if current_task else None)


def route(name: str, _args: object, _kwargs: object, _options: object, task: Any = None, **_: object) -> Any:
    """Send a task to the queue of its `queue_name`: an entry of Celery's `task_routes`."""
    queue = getattr(task or current_app.tasks.get(name), "queue_name", None)
    return {"queue": queue} if queue else None


class AppTask(Task[Any, Any]):
    """A task whose body may be `async def`, that fails when it keeps killing its process, and is requeued when its next attempt
    cannot be queued.
    """

    queue_name: str | None = None
    """The queue of calls that name none; None is `default`. Celery's own `queue` option is deprecated."""

    Request = "app.worker.request:AppRequest"

    redact_arguments = False
    """Whether Flower, and other consumers of events, get no arguments of the task."""

    dead_letter = False
    """Whether its message becomes a dead letter when it fails: it raised with no retry left, or exceeded its hard time limit."""

    is_async = False
    """Whether its body is `async def`; set by `AppTask`."""

    log_level = logging.INFO
    """The level of its log lines: DEBUG for a task that runs every few seconds."""

    record_last_success = False
    """Whether metrics, if there are any, contain the time of its last success, so that an alert can notice a missing one."""

    unique: flow_control.Unique | None = None
    concurrency: flow_control.Concurrency | None = None
    throttle: flow_control.Throttle | None = None
    rate: flow_control.Rate | None = None
    debounce: flow_control.Debounce | None = None

    rules: flow_control.Rules | None = None
    """Its rules of flow control, if it declares one; set by `AppTask`."""

    version: int | None = None
    """The version of its parameters, for `upgrades`; see `payload_versions`."""

    upgrades: payload_versions.Upgrades = MappingProxyType({})
    """By version, a function that makes the arguments of messages of that version those of the next."""

    submit = False
    """Whether clients of the API may queue it with POST /tasks, if the project has that: see docs/task-api.md."""

    peak_memory = 150 * 1024 * 1024
    """The most bytes that its process uses (`VmHWM`): tests/worker/test_worker_memory.py compares them with the workers' limits."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Run an `async def` body on the process's event loop; here, so that Celery's own wrappers get a plain function.

        Raises:
            TypeError: the task has an option under its former name.
        """
        super().__init_subclass__(**kwargs)
        for former, option in _RENAMED.items():
            if former in cls.__dict__:
                raise TypeError(f"{cls.__dict__.get('name', cls.__name__)}: write {option} instead of {former}")
        run = cls.__dict__.get("run")
        function = run.__func__ if isinstance(run, staticmethod) else run
        if function is None:
            return
        has_models = cls.__dict__.get("_dump_pydantic_arguments") is not None
        # Celery's wrapper of `pydantic=True` is a plain function, which returns the coroutine.
        cls.is_async = inspect.iscoroutinefunction(getattr(function, "__wrapped__", None) if has_models else function)
        if not cls.is_async:
            return

        @functools.wraps(function)
        def run_async(*args: Any, **kwargs: Any) -> Any:
            token = _request.set(current_task.request if current_task else None)
            try:
                result = event_loop.run(function(*args, **kwargs))
            finally:
                _request.reset(token)
            # Celery's wrapper gets a coroutine and does not dump it. Its `pydantic_dump_kwargs` are not known here.
            return result.model_dump(mode="json") if has_models and isinstance(result, BaseModel) else result

        cls.run = staticmethod(run_async) if isinstance(run, staticmethod) else run_async

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Give the task the application's settings; a time limit that is given alone sets the other one too.

        Raises:
            ValueError: its limits contradict each other.
        """
        named = cls.time_limit, cls.soft_time_limit
        bound = super().bind(app)
        payload_versions.check(cls)
        cls.rules = flow_control.Rules(cls) if flow_control.has_rules(cls) else None
        # What is not its own is the application's, or that of `task_annotations`.
        hard, soft = (
            own if own is not None else _annotated(cls, name, app) for name, own in zip(_LIMITS, named, strict=True)
        )
        defaults = app.conf.task_time_limit, app.conf.task_soft_time_limit
        try:
            cls.time_limit, cls.soft_time_limit = complete_limits(hard, soft, *defaults)
        except ValueError as error:
            raise ValueError(f"{cls.name}: {error}") from error
        return bound

    @property
    def __trace__(self) -> Any:
        """The function that runs the task in a worker."""
        return self.__dict__.get("tracer")

    @__trace__.setter
    def __trace__(self, tracer: Any) -> None:
        tracer = logs.log_end(self, return_rejection(tracer))
        if self.rules is not None:
            tracer = waiting.limit_starts(self, tracer)
        if self.version is not None:
            tracer = payload_versions.upgrade(self, tracer)
        self.__dict__["tracer"] = tracer

    @property
    def takes_models(self) -> bool:
        """Whether it has Celery's option `pydantic=True`."""
        return self._dump_pydantic_arguments is not None

    @property
    def request(self) -> Any:
        """The current request of this task, also if the event loop runs in another thread than the task."""
        return self.request_stack.top or _request.get() or super().request

    def signature(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """Return a signature. Models that are arguments are JSON in it, so that workflows and `enqueue` can read it.

        Celery makes them JSON only when it queues this task, not the one before it.
        """
        args, kwargs = self.without_models(args, kwargs)
        return super().signature(args, kwargs, *more, **options)

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """Queue the task as Celery does.

        Raises:
            InvalidArguments: a message cannot contain the arguments.
            ValueError: the limits of this call contradict each other.
            app.worker.eager_mode.EagerModeRefused: `task_always_eager` is set.
            app.worker.flow_control.NotQueued: a rule of the task refuses the call.
        """
        eager_mode.refuse(self.app.conf)
        args, kwargs = self.without_models(args, kwargs)
        hard, soft = (options.get(name) for name in _LIMITS)
        if hard is not None or soft is not None:
            default: Any = self
            given = complete_limits(hard, soft, default.time_limit, default.soft_time_limit)
            options.update(zip(_LIMITS, given, strict=True))
        owner = owners.current_owner(current_request())
        if owner:
            options["headers"] = {owners.HEADER: owner, **(options.get("headers") or {})}
            if options.get("priority") is None and self.priority is None:
                options["priority"] = owners.PRIORITY
        headers = correlation.headers()
        if self.version is not None:
            options["headers"] = {**(options.get("headers") or {}), payload_versions.HEADER: self.version}
        if headers:
            options["headers"] = {**headers, **(options.get("headers") or {})}
        try:
            check_arguments(args=args, kwargs=kwargs, headers=options.get("headers"))
            if self.rules and self.rules.are_judged_when_queued and not _is_retry(options):
                options.update(zip(_POSITIONAL, more, strict=False))
                options["task_id"] = options.get("task_id") or uuid()
                send = functools.partial(super().apply_async, args, kwargs)
                return flow_control.publish(self.rules, send, args, kwargs, options)
            return super().apply_async(args, kwargs, *more, **options)
        except (InvalidArguments, EncodeError) as error:
            raise InvalidArguments(f"{self.name}: {error}") from error

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task here, without a message, as Celery does.

        Raises:
            app.worker.eager_mode.EagerModeRefused: `task_always_eager` is set, with which Celery calls this for a workflow.
        """
        eager_mode.refuse(self.app.conf)
        return super().apply(*args, **kwargs)

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Stop a task that was revoked, or that was redelivered too often.

        Raises:
            celery.exceptions.Ignore: it was revoked.
            app.worker.redelivery.RedeliveryLimitExceeded: it was redelivered more than `CELERY_MAX_REDELIVERIES` times.
        """
        start.check(self, task_id)

    def retry(self, args: Any = None, kwargs: Any = None, exc: Any = None, *more: Any, **options: Any) -> Any:
        """Store RETRY, then queue the next attempt as Celery does; see `ResultBackend`.

        Raises:
            celery.exceptions.Retry: the next attempt is queued.
            celery.exceptions.Reject: it could not be queued; this attempt is requeued.
            celery.exceptions.MaxRetriesExceededError: there is no attempt left, and `exc` is None.
            BaseException: `exc`, if there is no attempt left.
        """
        request = self.request
        if not (request.called_directly or request.is_eager or request.ignore_result):
            self.backend.store_result(
                request.id, exc, states.RETRY, request=request, next_retry=self._seconds_until_retry(options)
            )
        try:
            return super().retry(args, kwargs, exc, *more, **options)
        except Reject as error:
            # Celery's own rejection drops the task.
            raise Reject(error.reason, requeue=True) from error

    def without_models(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments of a task with `pydantic=True` with models as JSON, as Celery does it."""
        dump = self._dump_pydantic_arguments
        return dump(args, kwargs) if dump else (args, kwargs)

    def _seconds_until_retry(self, options: dict[str, Any]) -> float:
        """Return the seconds after which the next attempt may run, given the options of `retry`."""
        eta, countdown = options.get("eta"), options.get("countdown")
        if isinstance(eta, datetime):
            return max(0.0, (eta if eta.tzinfo else eta.replace(tzinfo=UTC)).timestamp() - time.time())
        return float((self.default_retry_delay if countdown is None else countdown) or 0)


def _is_retry(options: dict[str, Any]) -> bool:
    """Return whether it is the same call again, by whomever."""
    return bool(options.get("retries") or REPLAY_HEADER in (options.get("headers") or {}))


def _annotated(task: Any, name: str, app: Any) -> Any:
    """Return a limit that `task_annotations` gave the task, or None."""
    value = getattr(task, name)
    return value if value != app.conf[f"task_{name}"] else None
