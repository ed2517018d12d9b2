"""A running beat skips paused entries, also after a restart, and runs what operators ask for."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.worker import schedule_control
from app.worker.schedule_control import Entry
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, wait_until

ENTRY = "schedule-heartbeat"
SKIPPED = "is paused"
REDBEAT = {"REDBEAT_LOOP_INTERVAL": "1", "REDBEAT_LOCK_TIMEOUT": "5"}


@pytest.fixture
def start_beat(broker: Any, tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    """Give a function that starts a beat with a log of that name, in a broker's database without data."""
    broker.flushdb()
    started: list[Running] = []

    def start(name: str) -> Running:
        folder = tmp_path / name
        folder.mkdir()
        command = ("celery", "-A", "app.core.celery:celery_app", "beat", "--loglevel=info")
        running = Running(folder / "beat.log", *command, "-s", str(tmp_path / "schedule"), **FAST, **REDBEAT)
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()
    broker.flushdb()


def _entry(broker: Any) -> Entry | None:
    return next((entry for entry in schedule_control.read(broker)[0] if entry.name == ENTRY), None)


def _last_task(broker: Any) -> str | None:
    entry = _entry(broker)
    return entry.last_task if entry else None


def test_a_paused_entry_is_skipped_also_after_a_restart_and_runs_when_asked_for(
    start_beat: Callable[[str], Running], broker: Any
) -> None:
    beat = start_beat("first")
    wait_until(lambda: _last_task(broker), 40, "the entry to run")
    entry = _entry(broker)
    assert entry is not None
    assert (entry.description.task, entry.paused_since) == ("schedule_heartbeat", None)
    assert entry.description.next_run
    schedule_control.pause(broker, ENTRY)
    wait_until(lambda: SKIPPED in beat.text(), 20, "the entry to be skipped")
    last = _last_task(broker)
    beat.signal(signal.SIGKILL)
    beat = start_beat("second")
    wait_until(lambda: beat.text().count(SKIPPED) > 1, 40, "the entry to be skipped twice after the restart")
    assert _last_task(broker) == last
    asked = schedule_control.request_run(broker, ENTRY)
    wait_until(lambda: _last_task(broker) == asked, 20, "the run that was asked for")
    skipped = beat.text().count(SKIPPED)
    wait_until(lambda: beat.text().count(SKIPPED) > skipped, 20, "the entry to be skipped again")
    assert _last_task(broker) == asked
    schedule_control.resume(broker, ENTRY)
    wait_until(lambda: _last_task(broker) != asked, 20, "the entry to run again")


def test_a_run_that_was_asked_for_while_beat_was_restarting_is_queued_once(
    start_beat: Callable[[str], Running], broker: Any
) -> None:
    schedule_control.pause(broker, ENTRY)
    asked = schedule_control.request_run(broker, ENTRY)
    beat = start_beat("first")
    wait_until(lambda: _last_task(broker) == asked, 40, "the run that was asked for")
    wait_until(lambda: beat.text().count(SKIPPED) > 1, 20, "the entry to be skipped twice")
    assert sum(broker.llen(key) for key in broker.scan_iter("high*")) == 1
