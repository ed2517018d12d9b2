"""The probe for health checks: its results and its cost."""

import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import probe

FILE = Path(probe.__file__)


def _run(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", str(FILE), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


class _Answering(socketserver.StreamRequestHandler):
    status = b"200 OK"

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.1 " + self.status + b"\r\n\r\n{}")


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Give the port of a server that answers with the status in the test's parameter."""
    handler = type("Handler", (_Answering,), {"status": request.param})
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("port", [b"200 OK"], indirect=True)
def test_an_api_that_answers_is_healthy(port: int) -> None:
    assert _run("api", str(port)) == (0, "ok\n")


@pytest.mark.parametrize("port", [b"503 Service Unavailable", b""], indirect=True)
def test_an_api_that_answers_an_error_is_unhealthy(port: int) -> None:
    code, line = _run("api", str(port))
    assert code == 1
    assert line in {"GET /health returned 503\n", "GET /health returned nothing\n"}


def test_an_unreachable_api_is_unhealthy() -> None:
    code, line = _run("api", "1")
    assert code == 1
    assert "port 1" in line


@pytest.mark.parametrize("what", ["worker", "beat"])
def test_only_a_fresh_heartbeat_is_healthy(what: str, tmp_path: Path) -> None:
    heartbeat = tmp_path / f"{what}.heartbeat"
    assert _run(what, HEALTH_FOLDER=str(tmp_path))[0] == 1
    heartbeat.touch()
    assert _run(what, HEALTH_FOLDER=str(tmp_path)) == (0, "ok\n")
    # Without the variable, the system's temporary folder.
    assert _run(what, TMPDIR=str(tmp_path)) == (0, "ok\n")
    old = time.time() - probe.MAX_AGE - 1
    os.utime(heartbeat, (old, old))
    code, line = _run(what, HEALTH_FOLDER=str(tmp_path))
    assert code == 1
    assert line.startswith("the last heartbeat is 3")


def test_invalid_arguments_are_an_error() -> None:
    assert _run()[0] == _run("workers")[0] == _run("api", "x")[0] == 1


def test_it_takes_milliseconds_and_imports_only_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "worker.heartbeat").touch()
    code = (
        "import json, runpy, sys, time\n"
        f"before, start = set(sys.modules), time.process_time()\n"
        f"sys.argv = ['probe', 'worker']\n"
        "try:\n"
        f"    runpy.run_path({str(FILE)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(json.dumps([end.code, time.process_time() - start, sorted(set(sys.modules) - before)]))\n"
    )
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-I", "-c", code],
            env={"HEALTH_FOLDER": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    assert [exit_code for exit_code, _, _ in runs] == [0, 0, 0]
    assert min(seconds for _, seconds, _ in runs) < 0.05
    assert {name.partition(".")[0] for name in runs[0][2]} <= set(sys.stdlib_module_names)
