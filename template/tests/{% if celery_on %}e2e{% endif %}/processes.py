"""Starting, watching and killing the application's processes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from devtools.servers import free_port
from tests import ROOT

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float, what: str) -> T:
    """Return the first true value of `condition`; fail after `timeout` seconds, saying `what` was waited for."""
    pause = threading.Event()
    for _ in range(int(timeout / 0.05)):
        value = condition()
        if value:
            return value
        pause.wait(0.05)
    raise AssertionError(f"waited {timeout} s for {what}; the last value was {value!r}")


class Running:
    """A process in a group of its own, with its output in a file."""

    def __init__(self, log: Path, *command: str, **environment: str) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={
                    **os.environ,
                    "LOG_FORMAT": "json",
                    "LOG_LEVEL": "INFO",
                    "HEALTH_FOLDER": str(log.parent),
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of that event."""
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{") and line.endswith("}"):
                entry = json.loads(line)
                if entry.get("event") == event:
                    found.append(entry)
        return found

    def text(self) -> str:
        """Return what the process has written."""
        return self.log.read_text()

    def children(self) -> list[int]:
        """Return the process ids of its children."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        if path.exists():
            return [int(pid) for pid in path.read_text().split()]
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(pid) for pid in found.stdout.split()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group."""
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """End the process as an operator would, and by force after 20 s."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self.process.wait(10)


def start_worker(log: Path, *options: str, pool: str = "prefork", **environment: str) -> Running:
    """Start a worker with the tasks of `probe_tasks` and wait until it consumes."""
    worker = Running(
        log,
        *("app.worker", "worker", "--loglevel=info", "--concurrency=2"),
        # Looking for other workers takes a second at each start.
        "--without-mingle",
        *("-I", "tests.e2e.probe_tasks", "-P", pool, "-n", f"{log.stem}@%h", *options),
        **environment,
    )
    wait_until(lambda: " ready." in worker.text() or worker.process.poll() is not None, 60, "the worker to start")
    assert worker.process.poll() is None, worker.text()
    return worker


def start_api(log: Path, app: str = "app.main:app", **environment: str) -> tuple[Running, str]:
    """Start the API on a free port and return it with its address, once it answers."""
    port = free_port()
    api = Running(log, "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), **environment)
    wait_until(lambda: "Uvicorn running" in api.text() or api.process.poll() is not None, 60, "the API to start")
    assert api.process.poll() is None, api.text()
    return api, f"http://127.0.0.1:{port}"
