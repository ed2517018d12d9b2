"""The base class of every task."""

import functools
import inspect
from contextvars import ContextVar
from typing import Any

import structlog
from celery import Task, current_app, current_task, states
from celery.exceptions import Reject
from redis.exceptions import RedisError

from app.core.config import settings
from app.worker import event_loop, records

_logger = structlog.get_logger("app.worker")
_request: ContextVar[Any] = ContextVar("task_request", default=None)


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

    hides_arguments = False
    """Whether Flower, and others who listen to events, must not see what it is called with."""

    peak_memory = 150 * 1024 * 1024
    """Bytes that its process takes at most (`VmHWM`): tests/test_worker_memory.py compares them with the workers' limits."""

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

    @property
    def request(self) -> Any:
        """The request that this task works on, also where the loop runs in another thread than the task."""
        return self.request_stack.top or _request.get() or super().request

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count the deliveries of a task that was handed out before, and give it up at the limit.

        Raises:
            RedeliveryLimitExceeded: it was handed out more than `CELERY_MAX_REDELIVERIES` times.
        """
        if not (self.request.delivery_info or {}).get("redelivered"):
            return
        limit = settings.celery.max_redeliveries
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
