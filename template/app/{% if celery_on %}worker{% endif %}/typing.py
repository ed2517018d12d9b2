"""The types of tasks: `delay`, `apply_async`, `s`, `si` and `enqueue` take what the task's function takes.

Only for mypy: Celery has no types. At run time each name here is Celery's own class. Not checked, as mypy cannot: `args` that
are a list, `kwargs`, chains, groups and chords, tasks with type variables, options given as `**dict[str, Any]`.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    overload,
)

from celery import Celery

from app.worker.flow_control import Concurrency, Debounce, Rate, Throttle, Unique

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class TaskOptions(TypedDict, total=False):
    """Options that several tasks share: `@celery_app.task(name=…, **OPTIONS)` keeps the types, with a plain dict it does not."""

    queue_name: str | None
    priority: int
    ignore_result: bool
    autoretry_for: tuple[type[BaseException], ...]
    dont_autoretry_for: tuple[type[BaseException], ...]
    max_retries: int | None
    default_retry_delay: int
    retry_backoff: bool | int
    retry_backoff_max: int
    retry_jitter: bool
    time_limit: float
    soft_time_limit: float
    rate_limit: str
    redact_arguments: bool
    dead_letter: bool
    record_last_success: bool
    log_level: int
    peak_memory: int
    submit: bool
    pydantic: bool
    trail: bool
    unique: Unique
    concurrency: Concurrency
    throttle: Throttle
    rate: Rate
    debounce: Debounce
    expires: float
    version: int


if TYPE_CHECKING:

    class AsyncResult(Generic[R_co]):
        """A queued task, as Celery's `AsyncResult`."""

        id: str
        status: str
        state: str
        result: Any
        parent: Any

        def get(self, timeout: float | None = None, propagate: bool = True, **options: Any) -> R_co: ...
        def __getattr__(self, name: str) -> Any: ...

    class PartialSignature(Generic[R_co]):
        """A step of a workflow, which gets the arguments that it lacks from the step before it."""

        options: dict[str, Any]

        def set(self, immutable: bool | None = None, **options: Any) -> Self: ...
        def clone(self) -> Self: ...
        def on_error(self, errback: Any) -> Self: ...
        def __or__(self, other: Any) -> Any: ...
        def __getattr__(self, name: str) -> Any: ...

    class Signature(PartialSignature[R_co]):
        """A call of a task with all of its arguments."""

        def delay(self) -> AsyncResult[R_co]: ...
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> AsyncResult[R_co]: ...

    class TypedTask(Generic[P, R_co]):
        """A task with the parameters P whose function returns R_co, or awaits it."""

        name: str

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R_co]: ...
        def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R_co]: ...

        # Without the first argument, or without any, it is the step of a workflow.
        @overload
        def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R_co]: ...
        @overload
        def s(self: "TypedTask[Concatenate[Any, Q], R]", *args: Q.args, **kwargs: Q.kwargs) -> PartialSignature[R]: ...
        @overload
        # mypy takes P for any parameters.
        def s(self) -> PartialSignature[R_co]: ...  # type: ignore[overload-cannot-match]
        def s(self, *args: Any, **kwargs: Any) -> Any: ...

        # One for each number of arguments: a tuple cannot be made of P.
        @overload
        def apply_async(
            self: Callable[[], R], args: tuple[()] | None = None, kwargs: None = None, **options: Any
        ) -> AsyncResult[R]: ...
        @overload
        def apply_async(
            self: Callable[[A], R], args: tuple[A], kwargs: None = None, **options: Any
        ) -> AsyncResult[R]: ...
        @overload
        def apply_async(
            self: Callable[[A, B], R], args: tuple[A, B], kwargs: None = None, **options: Any
        ) -> AsyncResult[R]: ...
        @overload
        def apply_async(
            self: Callable[[A, B, C], R], args: tuple[A, B, C], kwargs: None = None, **options: Any
        ) -> AsyncResult[R]: ...
        @overload
        def apply_async(
            self: Callable[[A, B, C, D], R], args: tuple[A, B, C, D], kwargs: None = None, **options: Any
        ) -> AsyncResult[R]: ...
        @overload
        def apply_async(
            self: Callable[[A, B, C, D, E], R], args: tuple[A, B, C, D, E], kwargs: None = None, **options: Any
        ) -> AsyncResult[R]: ...
        @overload
        def apply_async(
            self: Callable[[A, B, C, D, E, F], R], args: tuple[A, B, C, D, E, F], kwargs: None = None, **options: Any
        ) -> AsyncResult[R]: ...
        @overload
        def apply_async(self, args: list[Any], kwargs: None = None, **options: Any) -> AsyncResult[R_co]: ...
        @overload
        def apply_async(
            self, args: Sequence[Any] | None, kwargs: Mapping[str, Any], **options: Any
        ) -> AsyncResult[R_co]: ...
        @overload
        def apply_async(self, *, kwargs: Mapping[str, Any], **options: Any) -> AsyncResult[R_co]: ...
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any: ...

        def __getattr__(self, name: str) -> Any: ...

    class _Decorator(Protocol):
        @overload
        def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> TypedTask[P, R]: ...
        @overload
        def __call__(self, function: Callable[P, R], /) -> TypedTask[P, R]: ...

    class _BindingDecorator(Protocol):
        @overload
        def __call__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> TypedTask[P, R]: ...
        @overload
        def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> TypedTask[P, R]: ...

    class CeleryApp(Celery):
        """Celery's application with a typed `task`."""

        @overload
        def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> TypedTask[P, R]: ...
        @overload
        def task(self, function: Callable[P, R], /) -> TypedTask[P, R]: ...
        @overload
        def task(self, *, bind: Literal[True], **options: Any) -> _BindingDecorator: ...
        @overload
        def task(self, *, bind: Literal[False] = False, **options: Any) -> _Decorator: ...
        def task(self, *args: Any, **options: Any) -> Any: ...
else:
    from celery import Task as TypedTask
    from celery.canvas import Signature
    from celery.result import AsyncResult

    CeleryApp = Celery
    PartialSignature = Signature
