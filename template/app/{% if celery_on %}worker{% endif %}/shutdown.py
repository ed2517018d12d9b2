"""A worker that is told to stop ends in time: it finishes what it can, and the rest goes back to its queue at once.

Celery's own soft shutdown (`REMAP_SIGTERM`) does so too, but waits its whole time although everything may be done, and
leaves the threads pool hanging. Here a TERM is Celery's warm shutdown, which a timer turns into its cold one.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import structlog
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as ThreadsPool
from celery.exceptions import WorkerTerminate
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from celery.worker import state
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.worker import records

KILL_AFTER = 5.0
"""Seconds that a task has to end after it was told to; then its process is killed."""

_logger = structlog.get_logger("app.worker")
_state: Any = state
_pools: list[Any] = []
_timers: list[threading.Timer] = []
_told_to_end = threading.Event()


def connect() -> None:
    """Limit how long a worker takes to stop."""
    worker_ready.connect(_remember, weak=False)
    worker_shutting_down.connect(_limit, weak=False)
    worker_shutdown.connect(_leave_threads, weak=False)


def _remember(sender: Any, **_: object) -> None:
    _pools[:] = [sender.pool]


def _limit(how: str, **_: object) -> None:
    """Runs inside the signal's handler, in the main thread."""
    if how != "Warm" or _timers:
        return
    if any(isinstance(pool, SoloPool) for pool in _pools):
        # Celery's own handler would fail the task that it interrupts.
        signal.signal(signal.SIGQUIT, _leave)
    _after(celery_settings.soft_shutdown_timeout, _give_back)


def _after(seconds: float, function: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    _timers.append(timer)
    timer.start()


def _give_back() -> None:
    _told_to_end.set()
    _after(KILL_AFTER, _kill)
    # Beside it: where Redis is away, the time that is left is not for this.
    excusing = threading.Thread(target=_excuse, args=[_running()], daemon=True)
    excusing.start()
    excusing.join(1)
    os.kill(os.getpid(), signal.SIGQUIT)


def _excuse(task_ids: list[str]) -> None:
    try:
        records.excuse_redelivery(task_ids)
    except RedisError as error:
        _logger.warning("redeliveries_not_excused", error=repr(error))


def _running() -> list[str]:
    while True:
        try:
            return [request.id for request in _state.active_requests]
        except RuntimeError:
            # The consumer's thread changed the set while it was read.
            continue


def _leave(*_: object) -> None:
    raise WorkerTerminate(0)


def _leave_threads(sender: Any, **_: object) -> None:
    """End the process where Python would wait for threads whose tasks were given back, and may run elsewhere by now."""
    if _told_to_end.is_set() and any(isinstance(pool, ThreadsPool) for pool in _pools):
        logging.shutdown()
        os._exit(sender.exitcode or 0)


def _kill() -> None:
    """Kill the processes of tasks that do not listen: until they end the worker would not give their messages back."""
    for pool in _pools:
        for pid in pool.info.get("processes", ()):
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
