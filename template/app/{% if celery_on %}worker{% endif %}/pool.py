"""The threads pool: as many `def` tasks at a time as `--concurrency`, and as many `async def` tasks as `CELERY_ASYNC_CONCURRENCY`.

All `async def` tasks run on the process's one event loop. Celery traces a task in a thread: here that thread waits for the
coroutine and supervises it, so that time limits and revocations reach it. A thread that waits costs a few kilobytes and no CPU.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import structlog
from billiard.einfo import ExceptionInfo
from celery import concurrency
from celery.concurrency.thread import ApplyResult
from celery.concurrency.thread import TaskPool as CeleryThreadsPool
from celery.exceptions import Ignore, SoftTimeLimitExceeded, WorkerLostError, WorkerShutdown, WorkerTerminate
from celery.signals import worker_ready

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker import event_loop

T = TypeVar("T")

END_WITHIN = 3.0
"""Seconds that a cancelled coroutine has to clean up; then its thread no longer waits for it."""

_logger = structlog.get_logger("app.worker")


class CoroutineEnded(Ignore):
    """Ends Celery's trace of a task without an outcome: the request stores why it was ended."""


class Job(ApplyResult):
    """One task in the pool; supervises its coroutine if it is `async def`."""

    def __init__(self, *, is_async: bool, limits: tuple[float | None, float | None], options: dict[str, Any]) -> None:
        self.is_async = is_async
        self.is_started = False
        self.slot: Any = None
        """The prefetch of the consumer, if the job does not count towards it."""
        self._hard, self._soft = limits
        self._callbacks = options
        self._accepted = 0.0
        self._is_terminated = self._was_cancelled = False
        self._wake = threading.Event()

    def submit(self, executor: ThreadPoolExecutor, run: Callable[[], None]) -> None:
        """Run the job in a thread of `executor`."""
        super().__init__(executor.submit(run))

    def terminate(self, signal: object = None) -> None:
        """Cancel the coroutine, or do not start; called by the request, which stores the state."""
        if self.is_async or not self.is_started:
            self._is_terminated = True
            self._wake.set()

    def run(self, target: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Run the task in the pool's thread, as Celery's `apply_target` does."""
        self._accepted = time.monotonic()
        self._callbacks["accept_callback"](threading.get_native_id(), self._accepted)
        self.is_started = True
        if self._is_terminated:
            return
        token = event_loop.supervisor.set(self if self.is_async else None)
        try:
            outcome = target(*args, **kwargs)
        except (WorkerShutdown, WorkerTerminate):
            raise
        except (SystemExit, KeyboardInterrupt) as error:
            # As when a prefork process ends: requeued, up to the redelivery limit.
            self._fail(WorkerLostError(f"the task raised {error_repr(error)}"))
            return
        except Exception as error:  # noqa: BLE001 - the tracer reports what a task raises; this is a failure of the tracer
            self._fail(error)
            return
        finally:
            event_loop.supervisor.reset(token)
        if not self._was_cancelled:
            self._callbacks["callback"](outcome)
        elif not self._is_terminated:
            self._callbacks["timeout_callback"](False, self._hard)

    def _fail(self, error: Exception) -> None:
        try:
            raise error
        except Exception:  # noqa: BLE001 - ExceptionInfo reads it
            self._callbacks["error_callback"](ExceptionInfo())

    def supervise(self, interrupt: Callable[[BaseException], None], future: Future[T]) -> T:
        """Wait for the coroutine, enforce its time limits, and cancel it when it is terminated.

        Raises:
            CoroutineEnded: it was cancelled, because of its hard limit or a revocation.
        """
        future.add_done_callback(lambda _: self._wake.set())
        soft = self._soft
        while not self._wake.wait(self._seconds_until(soft)):
            if self._seconds_until(None) == 0:
                break
            if soft and self._seconds_until(soft) == 0:
                self._callbacks["timeout_callback"](True, soft)
                interrupt(SoftTimeLimitExceeded())
                soft = None
        if future.done() and not self._is_terminated:
            return future.result()
        self._was_cancelled = True
        interrupt(asyncio.CancelledError())
        if wait([future], END_WITHIN).not_done:
            _logger.warning("coroutine_ignores_cancellation")
        raise CoroutineEnded("terminated" if self._is_terminated else "hard time limit")

    def _seconds_until(self, soft: float | None) -> float | None:
        """Return the seconds until the next limit, at least 0; None if there is none."""
        limits = [limit for limit in (soft, self._hard) if limit]
        return max(0.0, self._accepted + min(limits) - time.monotonic()) if limits else None


class TaskPool(CeleryThreadsPool):
    """Celery's threads pool, with a larger number of threads for `async def` tasks, whose coroutines do the work.

    The consumer prefetches for the `def` tasks only, so that a worker does not hold those that another one could run. A
    running `async def` task does not count towards that number.
    """

    app: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._async_limit = celery_settings.async_concurrency
        self._async_executor = ThreadPoolExecutor(self._async_limit, thread_name_prefix="async-task")
        self._lock = threading.Lock()
        # Keeps each job until it ends: its request has a weak reference only.
        self._jobs: set[Job] = set()
        self._async_count = 0
        self._threads: dict[int, Job] = {}
        self._consumer: Any = None

    def attach(self, consumer: Any) -> None:
        """Use the prefetch of this consumer."""
        self._consumer = consumer

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, *_: Any, **options: Any) -> Job:
        """Start a task, or let it wait for a thread."""
        is_async = getattr(self.app.tasks.get(args[0]), "is_async", False)
        job = Job(is_async=is_async, limits=(options["timeout"], options["soft_timeout"]), options=options)
        with self._lock:
            self._jobs.add(job)
            self._async_count += is_async
            has_slot = self._async_count <= self._async_limit
        if is_async and has_slot:
            self._extend_prefetch(job)
        job.submit(self._async_executor if is_async else self.executor, lambda: self._run(job, target, args, kwargs))
        return job

    def terminate_job(self, pid: int, signal: object = None) -> None:
        """Do nothing: the request terminates the job itself.

        Raises:
            NotImplementedError: a thread runs a `def` task.
        """
        job = self._threads.get(pid)
        if job is not None and job.is_started and not job.is_async:
            raise NotImplementedError("a thread that runs a `def` task cannot be terminated")

    def cancel_coroutines(self) -> None:
        """Cancel every `async def` task; their messages stay unacknowledged."""
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            if job.is_async:
                job.terminate()

    def on_stop(self) -> None:
        """Wait for the running tasks."""
        self._async_executor.shutdown(cancel_futures=True)
        super().on_stop()

    def _run(self, job: Job, target: Any, args: Any, kwargs: Any) -> None:
        pid = threading.get_native_id()
        self._threads[pid] = job
        try:
            job.run(target, args, kwargs)
        finally:
            del self._threads[pid]
            with self._lock:
                self._jobs.discard(job)
                self._async_count -= job.is_async
            if job.slot is not None:
                # In the consumer's thread, which changes the number too.
                self._consumer.call_soon(self._reduce_prefetch, job.slot)

    def _extend_prefetch(self, job: Job) -> None:
        prefetch = getattr(self._consumer, "qos", None)
        if prefetch is None:
            return
        before = prefetch.value
        # Does nothing at the limit for countdowns.
        if prefetch.increment_eventually() > before:
            job.slot = prefetch

    def _reduce_prefetch(self, prefetch: Any) -> None:
        # After a lost connection Celery sets the number itself, without what this pool has added.
        if prefetch.value > self._consumer.initial_prefetch_count:
            prefetch.decrement_eventually()

    def _get_info(self) -> Any:
        return {**super()._get_info(), "max-async-concurrency": self._async_limit, "async-tasks": self._async_count}


def connect() -> None:
    """Make this the pool of `worker --pool=threads`."""
    concurrency.ALIASES["threads"] = f"{__name__}:{TaskPool.__name__}"
    worker_ready.connect(_attach, weak=False)


def _attach(sender: Any, **_: object) -> None:
    if isinstance(sender.pool, TaskPool):
        sender.pool.attach(sender)
