"""How far a task has come: `progress(done, total, "resizing")`, for its record and for who watches it.

A call only keeps the newest value. A thread of the process writes it, at most once per `INTERVAL` and task, so that neither many
calls nor a frozen Redis delay the task. What is not written yet is written before the task's end, or its retry, is stored.
"""

import json
import os
import threading
from typing import Any

import structlog
from celery import current_app

from app.core.logging import error_repr
from app.worker.broker import OUTAGES
from app.worker.task import current_request

STATE = "PROGRESS"
"""The state of a task in the result store while it reports progress."""

INTERVAL = 0.5
"""Seconds between two writes of one task's progress."""

MAX_MESSAGE = 200
"""Characters of a message; fewer of those that take several bytes, so that the record keeps it."""

_MAX_ENCODED = 300
_MAX_NUMBER = 10**15
_PAUSE_AFTER_REFUSAL = 5.0
"""Seconds until the next attempt: with a frozen Redis each takes a timeout."""

_logger = structlog.get_logger("app.worker")


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Report how far the task that runs has come, in any unit; does nothing outside of a worker.

    A task with `ignore_result=True` has no progress. A value that Redis refuses never fails the task.

    Args:
        done: what is done, such as 3 files. It may become less.
        total: what there is to do, if it is known.
        message: what the task does now.

    Raises:
        ValueError: a number is not finite, or has more than 15 digits.
    """
    value = {
        "done": _number("done", done),
        "total": None if total is None else _number("total", total),
        "message": _shortened(message),
    }
    request = current_request()
    if request is None or request.called_directly or request.is_eager or request.ignore_result:
        return
    report = _report_of(request)
    report.newest = value
    _writer().add(report)


def end(request: Any) -> None:
    """Write the newest progress of a task, and none after that: its end or its retry is stored next."""
    report = request.__dict__.get(_ATTRIBUTE) if request is not None else None
    if isinstance(report, _Report):
        report.end()


_ATTRIBUTE = "progress_report"
_lock = threading.Lock()
# A child must not be forked while the lock is held: nobody would release it there.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class _Report:
    """The progress of one run of a task."""

    def __init__(self, request: Any) -> None:
        self.newest: dict[str, Any] | None = None
        self._written: dict[str, Any] | None = None
        self._request = request
        self._has_ended = False
        # An older value must not be written after a newer one, or after the end.
        self._writing = threading.Lock()

    def write(self) -> None:
        """Write the newest value, if that has not been done and the run has not ended."""
        with self._writing:
            value = self.newest
            if self._has_ended or value is self._written:
                return
            backend: Any = current_app.backend
            backend._store_result(self._request.id, value, STATE, request=self._request)  # noqa: SLF001
            self._written = value

    def end(self) -> None:
        """Write the newest value and nothing after that."""
        try:
            self.write()
        except OUTAGES as error:
            _logger.warning("progress_not_stored", task_id=self._request.id, error=error_repr(error))
        finally:
            with self._writing:
                self._has_ended = True


class _Writer:
    """The thread of a process that writes the progress of its tasks."""

    def __init__(self) -> None:
        self._reports: set[_Report] = set()
        self._changing = threading.Lock()
        self._wake = threading.Event()
        self._pause = threading.Event()
        threading.Thread(target=self._run, name="task-progress", daemon=True).start()

    def add(self, *reports: _Report) -> None:
        """Write these as soon as they may be written."""
        with self._changing:
            self._reports.update(reports)
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            with self._changing:
                reports, self._reports = self._reports, set()
            self._pause.wait(self._write(reports))

    def _write(self, reports: set[_Report]) -> float:
        """Write the progress of some tasks and return the seconds until the next ones."""
        left = list(reports)
        while left:
            try:
                left[-1].write()
            except OUTAGES as error:
                _logger.warning("progress_not_stored", tasks=len(left), error=error_repr(error))
                self.add(*left)
                return _PAUSE_AFTER_REFUSAL
            left.pop()
        return INTERVAL


_writers: dict[int, _Writer] = {}


def _writer() -> _Writer:
    pid = os.getpid()
    with _lock:
        if pid not in _writers:
            # A forked process has the parent's writer, but not its thread.
            _writers.clear()
            _writers[pid] = _Writer()
        return _writers[pid]


def _report_of(request: Any) -> _Report:
    with _lock:
        report = request.__dict__.get(_ATTRIBUTE)
        # A header of the message may have any name, but not this type.
        if not isinstance(report, _Report):
            report = request.__dict__[_ATTRIBUTE] = _Report(request)
        return report


def _number(name: str, value: float) -> float:
    if not -_MAX_NUMBER < value < _MAX_NUMBER:
        raise ValueError(f"progress({name}={value}) is not a finite number of at most 15 digits.")
    # A number of another library has no JSON.
    return int(value) if value == int(value) else float(value)


def _shortened(message: str) -> str:
    # JSON may contain half of a surrogate pair, but Redis stores UTF-8.
    text = str(message)[:MAX_MESSAGE].encode(errors="backslashreplace").decode()[:MAX_MESSAGE]
    while len(json.dumps(text)) > _MAX_ENCODED:
        text = text[: len(text) * 3 // 4]
    return text
