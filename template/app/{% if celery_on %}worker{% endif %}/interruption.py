"""A coroutine that another thread, or a signal, can interrupt with an exception at the place where it waits."""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from celery._state import _task_stack

T = TypeVar("T")


class Interruptible(Generic[T]):
    """Runs a coroutine that `interrupt` can reach.

    asyncio can only cancel: a coroutine could not tell its soft time limit from anything else, and could not handle it.

    Args:
        coroutine: what runs.
        current_task: the Celery task that is `celery.current_task` inside; None if it is so already.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], current_task: Any = None) -> None:
        self._coroutine = coroutine
        self._current_task = current_task
        self._running: asyncio.Task[Any] | None = None
        self._pending: BaseException | None = None

    async def run(self) -> T:
        """Run the coroutine to its end and return its result or raise its exception."""
        self._running = asyncio.current_task()
        return await self._steps()

    def interrupt(self, error: BaseException) -> None:
        """Raise `error` in the coroutine where it waits, or at its next `await`; call this on its event loop."""
        self._pending = error
        if self._running is not None:
            # Wakes it up. An inner task may swallow the cancellation, so `_steps` looks after every wait.
            self._running.cancel()

    @types.coroutine
    def _steps(self) -> Generator[Any, Any, T]:
        error = self._take()
        while True:
            # The event loop's thread runs many tasks: this one is the current task for the length of a step only.
            if self._current_task is not None:
                _task_stack.push(self._current_task)
            try:
                waits_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                if self._current_task is not None:
                    _task_stack.pop()
            error = None
            try:
                yield waits_for
            except BaseException as raised:  # noqa: BLE001 - the coroutine gets it
                error = raised
            error = self._take() or error

    def _take(self) -> BaseException | None:
        error, self._pending = self._pending, None
        if error is not None and self._running is not None and not isinstance(error, asyncio.CancelledError):
            # Otherwise `asyncio.timeout` and task groups would take the coroutine for cancelled.
            self._running.uncancel()
        return error
