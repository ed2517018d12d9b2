"""The commands for development."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.config import Settings, base
from devtools import conflicts, secrets, servers

ROOT = Path(__file__).resolve().parent.parent


def test_secrets_are_written_once(tmp_path: Path) -> None:
    for example in (ROOT / "secret").glob("env.*.example"):
        (tmp_path / example.name).write_text(example.read_text())
    written = secrets.write_missing(tmp_path)
    assert {path.name for path in written} == {".env.development", ".env.production"}
    before = {path: path.read_text() for path in written}
    assert "<random" not in "".join(before.values())
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    assert secrets.write_missing(tmp_path) == []
    assert {path: path.read_text() for path in written} == before


def test_the_same_name_gets_the_same_random_value() -> None:
    first, second, other = secrets.fill("<random:a> <random:a> <random:b>").split()
    assert first == second != other
    assert len(first) >= 32


@pytest.mark.parametrize("environment", ["development", "production"])
def test_examples_know_only_settings_that_exist(environment: str) -> None:
    text = (ROOT / "secret" / f"env.{environment}.example").read_text()
    named = set(re.findall(r"^([A-Z_]+)=", text, flags=re.MULTILINE))
    known = {type(concern).variable(field) for concern in Settings().concerns() for field in type(concern).model_fields}
    assert named
    assert named <= known


def test_production_starts_with_the_written_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    example = (ROOT / "secret" / "env.production.example").read_text()
    (tmp_path / "secret" / ".env.production").write_text(secrets.fill(example))
    for name in re.findall(r"^([A-Z_]+)=", example, flags=re.MULTILINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(base, "ROOT", tmp_path)
    monkeypatch.setenv("ENVIRONMENT", "production")
    Settings().require_safe()
    if "<random" in example:
        (tmp_path / "secret" / ".env.production").write_text(example)
        assert Settings().audit()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb\n", []),
        ("a\n<<<<<<< before\nb\n=======\nc\n>>>>>>> after\n", [2, 6]),
        ("a\r\n<<<<<<< x\r\n||||||| y\r\n", [2, 3]),
        ("Heading\n=======\n", []),
        ("<<<<<<<< eight\n", []),
    ],
)
def test_conflict_markers_are_found(text: str, lines: list[int], tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode())
    assert conflicts.marked(path) == lines


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert servers.port_is_taken(port)
        assert servers.free_port(port) != port
    free = servers.free_port()
    assert servers.free_port(free) == free


def _with_servers(folder: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    redis = (ROOT / "app" / "core" / "redis.py").exists()
    postgres = "postgresql" in os.environ["DATABASE_URL"]
    if not (redis or postgres):
        pytest.skip("this project has no embedded server")
    code = (
        "import pathlib, sys, signal\n"
        "from devtools.servers import embedded_servers\n"
        f"with embedded_servers(pathlib.Path(sys.argv[1]), redis={redis}, postgres={postgres}):\n"
        "    print('up', flush=True)\n"
        "    signal.pause()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    files = [folder / "valkey" / "valkey.pid", folder / "postgresql" / "postmaster.pid"]
    return process, [int(file.read_text().split()[0]) for file in files if file.exists()]


def _lives(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_servers_end_with_their_process(number: signal.Signals, tmp_path: Path) -> None:
    process, pids = _with_servers(tmp_path)
    assert pids
    assert all(_lives(pid) for pid in pids)
    process.send_signal(number)
    assert process.wait(30) != 0
    assert not any(_lives(pid) for pid in pids)


def test_servers_of_a_killed_process_are_replaced(tmp_path: Path) -> None:
    process, old = _with_servers(tmp_path)
    process.kill()
    process.wait(10)
    process, _ = _with_servers(tmp_path)
    process.terminate()
    process.wait(30)
    assert not any(_lives(pid) for pid in old)
