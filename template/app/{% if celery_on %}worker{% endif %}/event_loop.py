"""One event loop per worker process, for `async def` tasks.

prefork and solo run a task in the process's main thread: the loop runs there too, so that what Celery stores per
thread is available, and tasks run one after the other. The threads pool runs many tasks at once: they share a loop in a
background thread, and `app/worker/pool.py` supervises each of them.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import structlog
from celery._state import get_current_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_shutdown, worker_shutdown

from app.core.logging import error_repr
from app.worker.interruption import Interruptible

T = TypeVar("T")

_logger = structlog.get_logger("app.worker")


class Supervisor(Protocol):
    """What waits for a coroutine on the background loop."""

    def supervise(self, interrupt: Callable[[BaseException], None], future: Future[T]) -> T:
        """Return the coroutine's result or raise its exception; `interrupt` raises one inside the coroutine."""


supervisor: ContextVar[Supervisor | None] = ContextVar("supervisor", default=None)
"""What supervises the coroutine that this thread runs next."""


class _ProcessLoop:
    """The loop of the process that made it, with the database opened on it."""

    def __init__(self, *, background: bool) -> None:
        self.pid = os.getpid()
        self.background = background
        self.closing = False
        self.loop = asyncio.new_event_loop()
        if background:
            threading.Thread(target=self._run_forever, name="task-loop", daemon=True).start()
        # Imports SQLAlchemy, which takes as long as all of Celery and which a worker needs only for `async def` tasks.
        from app.core.database import open_database  # noqa: PLC0415

        self.run(open_database())

    def _run_forever(self) -> None:
        while not self.closing:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                # A coroutine that calls `sys.exit` ends, and asyncio stops the loop, which the other tasks still need.
                _logger.warning("task_loop_restarted", error=error_repr(error))

    def run(self, coroutine: Coroutine[Any, Any, T], supervising: Supervisor | None = None) -> T:
        return self._run_in_background(coroutine, supervising) if self.background else self._run_here(coroutine)

    def _run_in_background(self, coroutine: Coroutine[Any, Any, T], supervising: Supervisor | None) -> T:
        execution = Interruptible(coroutine, get_current_task())

        def interrupt(error: BaseException) -> None:
            self.loop.call_soon_threadsafe(execution.interrupt, error)

        future = asyncio.run_coroutine_threadsafe(execution.run(), self.loop)
        if supervising is not None:
            return supervising.supervise(interrupt, future)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                interrupt(asyncio.CancelledError())
            raise

    def _run_here(self, coroutine: Coroutine[Any, Any, T]) -> T:
        execution = Interruptible(coroutine)
        task = self.loop.create_task(execution.run())
        try:
            return self.loop.run_until_complete(task)
        except BaseException as error:
            # A signal stops the loop between two steps: the task must not continue inside the next one.
            if task.done():
                raise
            is_soft = isinstance(error, SoftTimeLimitExceeded)
            execution.interrupt(error if is_soft else asyncio.CancelledError())
            self.loop.run_until_complete(asyncio.wait([task]))
            if is_soft:
                # As in a `def` task, which may handle it.
                return task.result()
            raise

    def close(self) -> None:
        from app.core.database import close_database  # noqa: PLC0415 - see __init__

        self.run(close_database())
        self.closing = True
        if self.background:
            self.loop.call_soon_threadsafe(self.loop.stop)
        else:
            self.loop.close()


_lock = threading.Lock()
_loops: dict[bool, _ProcessLoop] = {}
# A loop that was inherited through a fork is referenced but not used: collecting it would unregister the parent's file descriptors.
_inherited: list[_ProcessLoop] = []


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end on this process's loop and return its result or raise its exception."""
    return _process_loop().run(coroutine, supervisor.get())


def start() -> None:
    """Start this process's loop and open the database on it, if that has not been done."""
    _process_loop()


def _process_loop() -> _ProcessLoop:
    background = threading.current_thread() is not threading.main_thread() or _loop_is_running()
    with _lock:
        known = _loops.get(background)
        if known is None or known.pid != os.getpid():
            if known is not None:
                _inherited.append(known)
            known = _loops[background] = _ProcessLoop(background=background)
    return known


def close(**_: object) -> None:
    """Close this process's loops and their database connections."""
    with _lock:
        for loop in _loops.values():
            if loop.pid == os.getpid():
                loop.close()
        _loops.clear()


def connect() -> None:
    """Close the loops when a worker process ends."""
    worker_process_shutdown.connect(close, weak=False)
    worker_shutdown.connect(close, weak=False)


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
