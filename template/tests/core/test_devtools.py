"""The commands in devtools/."""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from app.core.config import audit_settings, base, load_groups, require_safe_settings
from devtools import check, conflicts, dev, secrets, servers, update
from tests import ROOT


def test_existing_settings_files_are_never_changed(tmp_path: Path) -> None:
    for example in (ROOT / "secret").glob("env.*.example"):
        (tmp_path / example.name).write_text(example.read_text())
    written = secrets.write_missing(tmp_path)
    assert {path.name for path in written} >= {".env.development", ".env.production"}
    before = {path: path.read_text() for path in written}
    assert "<random" not in "".join(before.values())
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    assert secrets.write_missing(tmp_path) == []
    assert {path: path.read_text() for path in written} == before


def _examples(folder: Path) -> None:
    (folder / "env.production.example").write_text("A=redis://:<random:one>@redis/0\nB=<random:two>\nC=3\n")
    (folder / "env.redis.example").write_text("PASSWORD=<random:one>\n")
    (folder / "env.development.example").write_text("B=<random:two>\n")


def test_a_new_server_file_gets_the_password_of_its_clients(tmp_path: Path) -> None:
    _examples(tmp_path)
    (tmp_path / ".env.production").write_text("A=redis://:pass%40word@elsewhere/1\nB=known\n")
    assert [path.name for path in secrets.write_missing(tmp_path)] == [".env.development", ".env.redis"]
    assert (tmp_path / ".env.redis").read_text() == "PASSWORD=pass@word\n"
    # Development does not share values with production.
    assert "known" not in (tmp_path / ".env.development").read_text()


def test_a_secret_is_rotated_in_every_file(tmp_path: Path) -> None:
    _examples(tmp_path)
    secrets.write_missing(tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.glob(".env.*")}
    assert {path.name for path in secrets.rotate(tmp_path, ["one"])} == {".env.production", ".env.redis"}
    after = {path.name: path.read_text() for path in tmp_path.glob(".env.*")}
    new = after[".env.redis"].strip().removeprefix("PASSWORD=")
    assert new not in before[".env.redis"]
    assert f"A=redis://:{new}@redis/0\n" in after[".env.production"]
    assert after[".env.production"].splitlines()[1:] == before[".env.production"].splitlines()[1:]
    assert after[".env.development"] == before[".env.development"]
    for names in ([], ["three"]):
        with pytest.raises(ValueError, match="one, two"):
            secrets.rotate(tmp_path, names)


def test_settings_files_are_made_private(tmp_path: Path) -> None:
    path = tmp_path / ".env.production"
    path.touch(mode=0o644)
    secrets.protect(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("code", "stopped"), [(0, False), (1, False), (2, False), (15, False), (-2, True), (130, True), (143, True)]
)
def test_only_a_stop_signal_is_not_a_failure(code: int, stopped: bool) -> None:
    assert dev.was_stopped(code) is stopped


def test_the_same_name_gets_the_same_random_value() -> None:
    first, second, other = secrets.fill("<random:a> <random:a> <random:b>").split()
    assert first == second != other
    assert len(first) >= 32


@pytest.mark.parametrize("environment", ["development", "production"])
def test_examples_contain_only_existing_settings(environment: str) -> None:
    text = (ROOT / "secret" / f"env.{environment}.example").read_text()
    named = set(re.findall(r"^([A-Z_]+)=", text, flags=re.MULTILINE))
    known = {type(group).variable(field) for group in load_groups() for field in type(group).model_fields}
    assert named
    assert named <= known


def test_production_starts_with_generated_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    example = (ROOT / "secret" / "env.production.example").read_text()
    (tmp_path / "secret" / ".env.production").write_text(secrets.fill(example))
    for name in re.findall(r"^([A-Z_]+)=", example, flags=re.MULTILINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(base, "ROOT", tmp_path)
    monkeypatch.setenv("ENVIRONMENT", "production")
    require_safe_settings()
    if "<random" in example:
        (tmp_path / "secret" / ".env.production").write_text(example)
        assert audit_settings()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb\n", []),
        ("a\n<<<<<<< before\nb\n=======\nc\n>>>>>>> after\n", [2, 6]),
        ("a\r\n<<<<<<< x\r\n||||||| y\r\n", [2, 3]),
        ("Heading\n=======\n", []),
        ("<<<<<<<< eight\n", [1]),
        ("<<<<<<<<<< ten\n", []),
    ],
)
def test_conflict_markers_are_found(text: str, lines: list[int], tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode())
    assert conflicts.marked(path) == lines


def test_rejected_changes_are_found(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for name in ("added.rej", "x/other.rej", "gone.rej", "ignored.rej", "file.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("ignored.rej\n")
    subprocess.run(["git", "add", "added.rej", "gone.rej"], cwd=tmp_path, check=True)
    (tmp_path / "gone.rej").unlink()
    assert conflicts.rejected(tmp_path) == ["added.rej", "x/other.rej"]


def test_the_hooks_check_untracked_files(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for name in ("tracked.py", "new é.py", "ignored.py", "gone.py", ".gitignore"):
        (tmp_path / name).write_text("ignored.py\n")
    subprocess.run(["git", "add", "tracked.py", "gone.py"], cwd=tmp_path, check=True)
    (tmp_path / "gone.py").unlink()
    assert check.files(tmp_path) == [".gitignore", "new é.py", "tracked.py"]


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a project in which an update can start."""
    (tmp_path / update.ANSWERS).write_text("_commit: v1.0.0\n_src_path: 'gh:org/template'\n")
    monkeypatch.setattr(update, "ROOT", tmp_path)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--no-verify", "--message", "Start"]):
        names = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgSign=false"]
        subprocess.run(["git", *names, *command], cwd=tmp_path, check=True)
    return tmp_path


def test_an_update_needs_a_clean_commit(committed: Path) -> None:
    assert update.check() == "gh:org/template"
    (committed / "mine.txt").touch()
    with pytest.raises(update.Problem, match=r"(?s)Commit or stash.*mine\.txt"):
        update.check()
    shutil.rmtree(committed / ".git")
    with pytest.raises(update.Problem, match="git init"):
        update.check()


@pytest.mark.parametrize("option", ["--pretend", "-n"])
def test_an_update_refuses_to_pretend(option: str, committed: Path) -> None:
    with pytest.raises(update.Problem, match=r"(?s)merges nothing.*--if-newer.*check-update"):
        update.update([option], test=False, if_newer=False)


@pytest.mark.parametrize("option", ["--vcs-ref=:current:", "--vcs-ref", "-r", "-rHEAD"])
def test_an_update_to_a_given_release_is_not_one_to_a_newer(option: str, committed: Path) -> None:
    with pytest.raises(update.Problem, match="leave one of them out"):
        update.update([option], test=False, if_newer=True)


@pytest.mark.parametrize("options", [["--prereleases"], ["-g"], []])
def test_a_prerelease_is_newer_where_it_is_asked_for(
    options: list[str], committed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setenv("UV", "uv")
    monkeypatch.setattr(update, "check", lambda: "gh:org/template")
    monkeypatch.setattr(subprocess, "run", run)
    assert update.update(options, test=False, if_newer=True) == 0
    assert ("--prereleases" in commands[-1]) == bool(options)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ("<<<<<<< a\n_commit: v1\n=======\n_commit: v2\n>>>>>>> b\n_src_path: x\n", "conflict markers"),
        ("_commit: v1\n", "does not name the template"),
        ("_src_path: x\n", "does not name the template"),
        (None, "does not name the template"),
    ],
)
def test_an_update_needs_a_valid_answers_file(answers: str | None, words: str, committed: Path) -> None:
    path = committed / update.ANSWERS
    if answers is None:
        path.unlink()
    else:
        path.write_text(answers)
    with pytest.raises(update.Problem, match=words):
        update.check()


@pytest.mark.parametrize(
    ("output", "explanation"),
    [
        ("fatal: could not read from remote repository.", "is unreachable: there"),
        ("Copier could not load some Jinja extensions:", "extension"),
        ("This template requires Copier version >= 99", "newer Copier"),
        ("something else", "see its output above"),
    ],
)
def test_errors_of_copier_are_explained(output: str, explanation: str) -> None:
    assert explanation in update.explain(output, "there")


def test_a_port_in_use_is_skipped() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert servers.port_is_taken(port)
        assert servers.free_port(port) != port
    free = servers.free_port()
    assert servers.free_port(free) == free


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder with a long path and special characters.

    It is not in pytest's folder: if another run of root created that, the user of PostgreSQL may not enter it.
    """
    with tempfile.TemporaryDirectory(prefix="my pro'ject #1 50% (é)-") as path:
        folder = Path(path) / ("long" * 35)
        folder.mkdir()
        yield folder


# A locale that no machine has.
UNKNOWN_LOCALE = {"LANG": "xx_XX.UTF-8", "LC_TIME": "yy_YY"}


def _start_servers(folder: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    redis = "REDIS_CONNECTION_URL" in dev.known_settings()
    postgres = "postgresql" in os.environ["DATABASE_URL"]
    if not (redis or postgres):
        pytest.skip("this project has no embedded server")
    code = (
        "import pathlib, sys, signal\n"
        # A shell lets background processes ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from devtools.servers import embedded_servers\n"
        f"with embedded_servers(pathlib.Path(sys.argv[1]), redis={redis}, postgres={postgres}):\n"
        "    print('up', flush=True)\n"
        "    signal.pause()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        env={**os.environ, **UNKNOWN_LOCALE},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "up\n"
    files = [folder / "valkey" / "valkey.pid", folder / "postgresql" / "postmaster.pid"]
    return process, [int(file.read_text().split()[0]) for file in files if file.exists()]


def _alive(pids: list[int]) -> list[str]:
    """Return the processes that still run, without zombies."""
    found = [
        subprocess.run(
            ["ps", "-ww", "-o", "stat=,command=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        for pid in pids
    ]
    return [one.stdout for one in found if one.stdout.strip() and not one.stdout.startswith("Z")]


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_servers_stop_with_their_process(number: signal.Signals, folder: Path) -> None:
    process, pids = _start_servers(folder)
    assert len(_alive(pids)) == len(pids) > 0
    process.send_signal(number)
    assert process.wait(30) != 0
    assert _alive(pids) == []


@pytest.mark.processes
def test_two_processes_cannot_run_servers_in_one_folder(folder: Path) -> None:
    with (
        servers.embedded_servers(folder, redis=False, postgres=False),
        pytest.raises(servers.FolderInUse, match="make dev"),
        servers.embedded_servers(folder, redis=False, postgres=False),
    ):
        pass


@pytest.mark.processes
def test_servers_of_a_killed_process_are_replaced(folder: Path) -> None:
    process, old = _start_servers(folder)
    process.kill()
    process.wait(10)
    process, _ = _start_servers(folder)
    process.terminate()
    process.wait(30)
    assert _alive(old) == []


@pytest.mark.processes
def test_make_dev_starts_everything_and_leaves_no_process(folder: Path) -> None:
    for part in ("app", "devtools", "migrations"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("alembic.ini", "Procfile"):
        shutil.copy(ROOT / part, folder)
    with socket.socket() as taken:
        # A port in use: `make dev` takes the next one and reports it.
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        _run_dev(folder, taken.getsockname()[1])


def _run_dev(folder: Path, wanted: int) -> None:
    log = folder / "log"
    # Separate ports: the tests of another project may run at the same time.
    ports = {name: str(servers.free_port()) for name in ("FLOWER_PORT", "EMAIL_PORT")}
    variables = {**os.environ, "ENVIRONMENT": "development", "PORT": str(wanted), "DEV_SERVERS": "embedded", **ports}
    variables |= UNKNOWN_LOCALE
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "devtools.dev"],
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        port = int(_logged(log, process, r"dev:   API +http://127\.0\.0\.1:(\d+)/docs"))
        assert port != wanted
        assert f"port {wanted} is in use" in log.read_text()
        assert httpx.get(f"http://127.0.0.1:{port}/health").json() == {"status": "ok"}
        env = folder / ".dev" / "env"
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
        assert "dev: everything runs" in log.read_text()
        _find_the_servers(folder, variables, env.read_text())
        # As Ctrl-C in a terminal: the whole foreground process group gets the signal.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    assert "dev: everything has stopped" in log.read_text()
    assert not env.exists()
    started = [int(pid) for pid in re.findall(r"started \(pid=(\d+)\)", log.read_text())]
    assert len(started) >= len((ROOT / "Procfile").read_text().splitlines()) - 1
    assert _alive(started) == []
    commands = subprocess.run(["ps", "-ww", "-eo", "stat=,command="], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in commands


def _find_the_servers(folder: Path, variables: dict[str, str], shared: str) -> None:
    """Check that a command in another terminal uses the servers that `make dev` chose."""
    # The process environment of these tests names other servers.
    plain = {name: value for name, value in variables.items() if name not in dev.SHARED_VARIABLES}
    code = (
        "from app.core.config import load_groups\n"
        "for group in load_groups():\n"
        "    for field in type(group).model_fields:\n"
        "        value = getattr(group, field)\n"
        "        print(type(group).variable(field), getattr(value, 'get_secret_value', lambda: value)())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=plain, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    named = [(name, value) for name, value in re.findall(r'^(\w+)="(.*)"$', shared, re.MULTILINE) if "URL" in name]
    assert {f"{name} {value}" for name, value in named} <= set(found)
    assert named or "sqlite" in variables["DATABASE_URL"]


@pytest.mark.processes
@pytest.mark.parametrize("variable", ["DATABASE_URL", "CELERY_BROKER_URL"])
def test_make_dev_does_not_replace_a_configured_server(variable: str) -> None:
    url = {"DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/x"}.get(variable, "redis://:hunter2@127.0.0.1:1/1")
    variables = {**os.environ, "ENVIRONMENT": "development", variable: url}
    if variable == "CELERY_BROKER_URL" and "REDIS_CONNECTION_URL" not in os.environ:
        pytest.skip("this project has no Redis")
    command = [sys.executable, "-m", "devtools.dev"]
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stdout + result.stderr
    assert f"dev: {variable} names a" in result.stdout
    assert "hunter2" not in result.stdout + result.stderr


def _logged(log: Path, process: "subprocess.Popen[bytes]", pattern: str) -> str:
    """Wait until the pattern is in the log, and return its group."""
    pause = threading.Event()
    for _ in range(1200):
        found = re.search(pattern, log.read_text())
        if found:
            return found[1]
        assert process.poll() is None, log.read_text()
        pause.wait(0.05)
    raise AssertionError(f"{pattern} is not in the log:\n{log.read_text()}")
