"""Two beats, of which one fires; when it dies or stops the other takes over."""

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
    """Start two beats; the first is the one that fires."""
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


def _fires(beat: Running) -> bool:
    return SENDING in beat.text()


def test_one_fires_and_the_other_lives(beats: list[Running]) -> None:
    first, second = beats
    wait_until(lambda: first.text().count(SENDING) >= 2, 40, "the first beat to fire twice")
    assert not _fires(second)
    for beat in beats:
        age = time.time() - (beat.log.parent / "beat.heartbeat").stat().st_mtime
        assert age < 12
        assert beat.process.poll() is None


def test_the_other_takes_over_from_one_that_died(beats: list[Running]) -> None:
    first, second = beats
    wait_until(lambda: _fires(first), 40, "the first beat to fire")
    first.signal(signal.SIGKILL)
    wait_until(lambda: "holds the lock" in second.text(), 15, "the second beat to take over")
    wait_until(lambda: _fires(second), 20, "the second beat to fire")


def test_the_other_takes_over_at_once_from_one_that_stops(beats: list[Running]) -> None:
    first, second = beats
    wait_until(lambda: "holds the lock" in first.text(), 10, "the first beat to hold the lock")
    first.stop()
    assert first.process.returncode == 0
    # Sooner than the lock would expire.
    wait_until(lambda: "holds the lock" in second.text(), 3, "the second beat to take over")


def test_one_that_waits_stops_when_told_to(beats: list[Running]) -> None:
    _, second = beats
    second.stop()
    assert second.process.returncode == 0


def test_one_that_lost_the_lock_waits_and_does_not_fire(beats: list[Running], broker: Any) -> None:
    first, _ = beats
    wait_until(lambda: _fires(first), 40, "the first beat to fire")
    broker.set("redbeat::lock", "somebody else's")
    wait_until(lambda: "lost the lock" in first.text(), 15, "the first beat to lose the lock")
    fired = first.text().count(SENDING)
    assert first.process.poll() is None
    broker.delete("redbeat::lock")
    wait_until(lambda: sum(beat.text().count("holds the lock") for beat in beats) == 2, 15, "one to hold it again")
    assert first.text().count(SENDING) >= fired


def test_entries_that_vanish_from_redis_are_written_again(beats: list[Running], broker: Any) -> None:
    first, _ = beats
    wait_until(lambda: _fires(first), 40, "the first beat to fire")
    broker.delete("redbeat:schedule-heartbeat", "redbeat::schedule", "redbeat::statics")
    wait_until(lambda: broker.exists("redbeat:schedule-heartbeat"), 15, "the entry to be written again")
    fired = first.text().count(SENDING)
    wait_until(lambda: first.text().count(SENDING) > fired, 25, "the entry to fire again")
    assert broker.smembers("redbeat::statics")
