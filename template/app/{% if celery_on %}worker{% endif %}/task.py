"""The base class of every task."""

import functools
import inspect
import logging
from contextvars import ContextVar
from typing import Any

import structlog
from celery import Task, current_app, current_task, states
from celery.exceptions import Reject
from kombu.exceptions import EncodeError
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.worker import event_loop, owners, records, revocation
from app.worker.serializer import InvalidArguments, check_arguments
from app.worker.state_writes import requeuing
from app.worker.time_limits import limits

_logger = structlog.get_logger("app.worker")
_request: ContextVar[Any] = ContextVar("task_request", default=None)


_LIMITS = ("time_limit", "soft_time_limit")


def route(name: str, _args: object, _kwargs: object, _options: object, task: Any = None, **_: object) -> Any:
    """Send a task to the queue of its `queue_name`: an entry of Celery's `task_routes`."""
    queue = getattr(task or current_app.tasks.get(name), "queue_name", None)
    return {"queue": queue} if queue else None


class RedeliveryLimitExceeded(Exception):
    """The task's process died again and again; it is not tried once more."""


class AppTask(Task[Any, Any]):
    """A task whose body may be `async def`, which is given up when it keeps killing its process, and kept when it cannot be
    queued for its next attempt.
    """

    queue_name: str | None = None
    """The queue it goes to where the caller names none; None is `default`. Celery's own `queue` option is deprecated."""

    Request = "app.worker.state_writes:RequeuedRequest"

    hides_arguments = False
    """Whether Flower, and others who listen to events, must not see what it is called with."""

    log_level = logging.INFO
    """The level of its lines in the log: DEBUG for what runs every few seconds."""

    tells_last_success = False
    """Whether metrics, where there are any, tell when it last succeeded: an alert can miss it then."""

    peak_memory = 150 * 1024 * 1024
    """Bytes that its process takes at most (`VmHWM`): tests/worker/test_worker_memory.py compares them with the workers' limits."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Let an `async def` body run on the process's loop; here, so that Celery's own wrappers see a plain function."""
        super().__init_subclass__(**kwargs)
        run = cls.__dict__.get("run")
        function = run.__func__ if isinstance(run, staticmethod) else run
        if function is None or not inspect.iscoroutinefunction(function):
            return

        @functools.wraps(function)
        def run_async(*args: Any, **kwargs: Any) -> Any:
            token = _request.set(current_task.request if current_task else None)
            try:
                return event_loop.run(function(*args, **kwargs))
            finally:
                _request.reset(token)

        cls.run = staticmethod(run_async) if isinstance(run, staticmethod) else run_async

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Give the task the application's settings; a limit that it names alone brings the other.

        Raises:
            ValueError: its limits contradict each other.
        """
        named = cls.time_limit, cls.soft_time_limit
        bound = super().bind(app)
        # What is not its own is the application's, or that of `task_annotations`.
        hard, soft = (
            own if own is not None else _annotated(cls, name, app) for name, own in zip(_LIMITS, named, strict=True)
        )
        defaults = app.conf.task_time_limit, app.conf.task_soft_time_limit
        try:
            cls.time_limit, cls.soft_time_limit = limits(hard, soft, *defaults)
        except ValueError as error:
            raise ValueError(f"{cls.name}: {error}") from error
        return bound

    @property
    def __trace__(self) -> Any:
        """What runs the task in a worker."""
        return self.__dict__.get("tracer")

    @__trace__.setter
    def __trace__(self, tracer: Any) -> None:
        self.__dict__["tracer"] = requeuing(tracer)

    @property
    def request(self) -> Any:
        """The request that this task works on, also where the loop runs in another thread than the task."""
        return self.request_stack.top or _request.get() or super().request

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """Queue the task as Celery does.

        Raises:
            InvalidArguments: a message cannot hold the arguments.
            ValueError: the limits of this call contradict each other.
        """
        hard, soft = (options.get(name) for name in _LIMITS)
        if hard is not None or soft is not None:
            default: Any = self
            given = limits(hard, soft, default.time_limit, default.soft_time_limit)
            options.update(zip(_LIMITS, given, strict=True))
        owner = owners.current_owner(_request.get() or (current_task.request if current_task else None))
        if owner:
            options["headers"] = {owners.HEADER: owner, **(options.get("headers") or {})}
            if options.get("priority") is None and self.priority is None:
                options["priority"] = owners.PRIORITY
        try:
            check_arguments(args=args, kwargs=kwargs, headers=options.get("headers"))
            return super().apply_async(args, kwargs, *more, **options)
        except (InvalidArguments, EncodeError) as error:
            raise InvalidArguments(f"{self.name}: {error}") from error

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Stop a task that was revoked. Count the deliveries of one that was handed out before, and give it up at the limit.

        Raises:
            celery.exceptions.Ignore: it was revoked.
            RedeliveryLimitExceeded: it was handed out more than `CELERY_MAX_REDELIVERIES` times.
        """
        if not self.request.is_eager:
            revocation.stop_if_revoked(self)
        if not (self.request.delivery_info or {}).get("redelivered"):
            return
        limit = celery_settings.max_redeliveries
        try:
            count = records.count_redelivery(task_id)
        except RedisError as error:
            # Raising would end the task before it ran; a delivery that is not counted only puts the limit off.
            _logger.warning("redelivery_not_counted", task_id=task_id, error=repr(error))
            return
        if count > limit:
            raise RedeliveryLimitExceeded(
                f"{self.name} was handed out again {count} times, as its worker died each time; "
                f"given up at CELERY_MAX_REDELIVERIES={limit}"
            )

    def retry(self, args: Any = None, kwargs: Any = None, exc: Any = None, *more: Any, **options: Any) -> Any:
        """Queue the next attempt as Celery does, having said so first; see `ResultBackend`.

        Raises:
            celery.exceptions.Retry: the next attempt is queued.
            celery.exceptions.Reject: it could not be queued; this attempt goes back to its queue.
            celery.exceptions.MaxRetriesExceededError: there is no attempt left, and `exc` is None.
            BaseException: `exc`, there being no attempt left.
        """
        request = self.request
        if not (request.called_directly or request.is_eager or request.ignore_result):
            self.backend.store_result(request.id, exc, states.RETRY, request=request)
        try:
            return super().retry(args, kwargs, exc, *more, **options)
        except Reject as error:
            # Celery's own would drop the task.
            raise Reject(error.reason, requeue=True) from error


def _annotated(task: Any, name: str, app: Any) -> Any:
    """Return a limit that `task_annotations` gave the task, or None."""
    value = getattr(task, name)
    return value if value != app.conf[f"task_{name}"] else None
