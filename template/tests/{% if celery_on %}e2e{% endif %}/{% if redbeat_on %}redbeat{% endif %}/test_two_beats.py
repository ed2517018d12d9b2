"""Of two beats, one sends the tasks; when it dies or stops, the other takes over."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Running, wait_until

FAST = {"REDBEAT_LOOP_INTERVAL": "1", "REDBEAT_LOCK_TIMEOUT": "5"}
SENDING = "Sending due task"


@pytest.fixture
def beats(broker: Any, tmp_path: Path) -> Iterator[list[Running]]:
    """Start two beats; the first has the lock."""
    broker.flushdb()
    command = ("celery", "-A", "app.core.celery:celery_app", "beat", "--loglevel=info")
    running: list[Running] = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        running.append(Running(folder / "beat.log", *command, **FAST))
        wait_until((folder / "beat.heartbeat").exists, 30, f"the {name} beat's heartbeat")
    yield running
    for beat in running:
        beat.stop()
    broker.flushdb()


def _is_sending(beat: Running) -> bool:
    return SENDING in beat.text()


def test_one_beat_sends_tasks_and_the_other_stays_alive(beats: list[Running]) -> None:
    first, second = beats
    wait_until(lambda: first.text().count(SENDING) >= 2, 40, "two tasks of the first beat")
    assert not _is_sending(second)
    for beat in beats:
        age = time.time() - (beat.log.parent / "beat.heartbeat").stat().st_mtime
        assert age < 12
        assert beat.process.poll() is None


def test_the_other_beat_takes_over_after_a_crash(beats: list[Running]) -> None:
    first, second = beats
    wait_until(lambda: _is_sending(first), 40, "a task of the first beat")
    first.signal(signal.SIGKILL)
    wait_until(lambda: "has the lock" in second.text(), 15, "the second beat to take over")
    wait_until(lambda: _is_sending(second), 20, "a task of the second beat")


def test_the_other_beat_takes_over_immediately_after_a_stop(beats: list[Running]) -> None:
    first, second = beats
    wait_until(lambda: "has the lock" in first.text(), 10, "the first beat to get the lock")
    first.stop()
    assert first.process.returncode == 0
    # Earlier than the lock would expire.
    wait_until(lambda: "has the lock" in second.text(), 3, "the second beat to take over")


def test_a_waiting_beat_stops_on_sigterm(beats: list[Running]) -> None:
    _, second = beats
    second.stop()
    assert second.process.returncode == 0


def test_a_beat_that_lost_the_lock_waits_and_sends_nothing(beats: list[Running], broker: Any) -> None:
    first, _ = beats
    wait_until(lambda: _is_sending(first), 40, "a task of the first beat")
    broker.set("redbeat::lock", "another beat")
    wait_until(lambda: "lost the lock" in first.text(), 15, "the first beat to lose the lock")
    fired = first.text().count(SENDING)
    assert first.process.poll() is None
    broker.delete("redbeat::lock")
    wait_until(lambda: sum(beat.text().count("has the lock") for beat in beats) == 2, 15, "one to get the lock again")
    assert first.text().count(SENDING) >= fired


def test_entries_that_are_missing_in_redis_are_restored(beats: list[Running], broker: Any) -> None:
    first, _ = beats
    wait_until(lambda: _is_sending(first), 40, "a task of the first beat")
    broker.delete("redbeat:schedule-heartbeat", "redbeat::schedule", "redbeat::statics")
    wait_until(lambda: broker.exists("redbeat:schedule-heartbeat"), 15, "the entry to be restored")
    fired = first.text().count(SENDING)
    wait_until(lambda: first.text().count(SENDING) > fired, 25, "a task of the restored entry")
    assert broker.smembers("redbeat::statics")
