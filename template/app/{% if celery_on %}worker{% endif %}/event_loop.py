"""One event loop per worker process, for `async def` tasks.

prefork and solo run a task in the process's main thread: the loop runs there too, so that what Celery stores per
thread is available. The threads pool runs many tasks at once: they share a loop in a background thread.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from celery.signals import worker_process_shutdown, worker_shutdown

from app.core.database import close_database, open_database

T = TypeVar("T")


class _ProcessLoop:
    """The loop of the process that made it, with the database opened on it."""

    def __init__(self, *, background: bool) -> None:
        self.pid = os.getpid()
        self.background = background
        self.loop = asyncio.new_event_loop()
        if background:
            threading.Thread(target=self.loop.run_forever, name="task-loop", daemon=True).start()
        self.run(open_database())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self.background:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
            try:
                return future.result()
            except BaseException:
                future.cancel()
                raise
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except BaseException:
            # A soft time limit stops the loop between two steps: the task must not continue inside the next one.
            if not task.done():
                task.cancel()
                self.loop.run_until_complete(asyncio.wait([task]))
            raise

    def close(self) -> None:
        self.run(close_database())
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
    return _process_loop().run(coroutine)


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
