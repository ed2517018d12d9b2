"""Graceful shutdown: after TERM a worker finishes what it can, and requeues the rest at once.

Celery's own soft shutdown (`REMAP_SIGTERM`) does so too, but always waits its whole time, and leaves the threads pool
hanging. Here a TERM is Celery's warm shutdown, which a timer turns into its cold one.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import structlog
from celery.concurrency.solo import TaskPool as SoloPool
from celery.exceptions import WorkerTerminate
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from celery.worker import state
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.core.logging import error_repr
from app.worker import redelivery
from app.worker.pool import TaskPool as ThreadsPool

KILL_AFTER = 5.0
"""Seconds that a task has to end after it was interrupted; then its process is killed."""

_logger = structlog.get_logger("app.worker")
_state: Any = state
_pools: list[Any] = []
_timers: list[threading.Timer] = []
_requeued = threading.Event()


def connect() -> None:
    """Limit how long a worker takes to stop."""
    worker_ready.connect(_remember_pool, weak=False)
    worker_shutting_down.connect(_start_timer, weak=False)
    worker_shutdown.connect(_abandon_threads, weak=False)


def _remember_pool(sender: Any, **_: object) -> None:
    _pools[:] = [sender.pool]


def _start_timer(how: str, **_: object) -> None:
    """Start the timer of the cold shutdown; called inside the signal handler, in the main thread."""
    if how != "Warm" or _timers:
        return
    if any(isinstance(pool, SoloPool) for pool in _pools):
        # Celery's own handler would fail the task that it interrupts.
        signal.signal(signal.SIGQUIT, _terminate)
    _call_after(celery_settings.soft_shutdown_timeout, _requeue_running)


def _call_after(seconds: float, function: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    _timers.append(timer)
    timer.start()


def _requeue_running() -> None:
    _requeued.set()
    _call_after(KILL_AFTER, _kill_children)
    # In another thread: if Redis is down, the remaining time must not be spent on this.
    excusing = threading.Thread(target=_excuse, args=[_running_ids()], daemon=True)
    excusing.start()
    excusing.join(1)
    for pool in _pools:
        if isinstance(pool, ThreadsPool):
            # Celery's cold shutdown stops at the first `def` task, which it cannot cancel.
            pool.cancel_coroutines()
    os.kill(os.getpid(), signal.SIGQUIT)


def _excuse(task_ids: list[str]) -> None:
    try:
        redelivery.excuse_redeliveries(task_ids)
    except RedisError as error:
        _logger.warning("redeliveries_not_excused", error=error_repr(error))


def _running_ids() -> list[str]:
    while True:
        try:
            return [request.id for request in _state.active_requests]
        except RuntimeError:
            # The consumer's thread changed the set while it was read.
            continue


def _terminate(*_: object) -> None:
    raise WorkerTerminate(0)


def _abandon_threads(sender: Any, **_: object) -> None:
    """End the process: Python would wait for threads whose tasks were requeued, and may already run elsewhere."""
    if _requeued.is_set() and any(isinstance(pool, ThreadsPool) for pool in _pools):
        logging.shutdown()
        os._exit(sender.exitcode or 0)


def _kill_children() -> None:
    """Kill the processes of tasks that ignore the interrupt: the worker requeues their messages when they have ended."""
    for pool in _pools:
        for pid in pool.info.get("processes", ()):
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
