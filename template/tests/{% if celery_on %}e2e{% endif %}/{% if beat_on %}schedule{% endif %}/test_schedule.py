"""beat and a worker: a scheduled task, GET /ready and the probe."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.e2e.conftest import FAST, Stack
from tests.e2e.processes import Running


@pytest.fixture
def beat(stack: Stack, broker: Any, tmp_path: Path) -> Iterator[Running]:
    """Start beat."""
    broker.delete("alive:beat", "alive:schedule")
    command = ("celery", "-A", "app.core.celery:celery_app", "beat", "--loglevel=info")
    running = Running(tmp_path / "beat.log", *command, "-s", str(tmp_path / "schedule"), **FAST)
    yield running
    running.stop()


def _runs(stack: Stack) -> list[dict[str, Any]]:
    return [line for line in stack.worker.lines("task_finished") if line["task"] == "schedule_heartbeat"]


def test_a_scheduled_task_runs_and_ready_and_the_probe_report_beat(
    stack: Stack, beat: Running, broker: Any, tmp_path: Path
) -> None:
    stack.ready("beat", "ok")
    stack.ready("schedule", "ok")
    # It ran, but heartbeats are logged at DEBUG, so the log of an idle worker stays empty.
    assert _runs(stack) == []
    probe = [sys.executable, "-I", str(ROOT / "app" / "probe.py"), "beat"]
    assert subprocess.run(probe, env={"HEALTH_FOLDER": str(tmp_path)}, check=False).returncode == 0
    beat.signal(signal.SIGKILL)
    stack.ready("beat", "unavailable")
    # This record lasts as long as all workers may be busy.
    assert broker.exists("alive:schedule")
