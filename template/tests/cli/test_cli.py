"""The command line: how it finds its commands, starts, prints and exits."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import console
from app.cli.console import ExitCode
from app.core.config import defaults
from app.core.discovery import command_modules
from tests import ROOT
from tests.cli.fixtures import RunCli

SCRIPT = Path(sys.executable).with_name(defaults.SLUG)


def test_a_module_in_the_folder_is_a_command(tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    for path in ("audit.py", "queue/dead_letters.py", "queue/__init__.py", "notes.txt"):
        (tmp_path / path).touch()
    assert command_modules(tmp_path, "x") == {"audit": "x.audit", "dead-letters": "x.queue.dead_letters"}
    (tmp_path / "queue" / "audit.py").touch()
    with pytest.raises(ValueError, match=r"x\.audit and x\.queue\.audit are the same command"):
        command_modules(tmp_path, "x")


def test_the_command_has_the_projects_name_and_works_in_every_folder(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert set(command_modules()) <= set(done.stdout.split())


def test_help_does_not_import_the_application() -> None:
    """It would take a second before anything is printed."""
    code = (
        "import sys; from app.cli.main import create_cli\n"
        "try: create_cli()(['--help'])\n"
        "finally: print([m for m in ('celery', 'fastapi', 'pydantic', 'redis', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_shell_completes_commands() -> None:
    variable = f"_{defaults.SLUG.replace('-', '_').upper()}_COMPLETE"
    words = {variable: "complete_bash", "COMP_WORDS": f"{defaults.SLUG} aud", "COMP_CWORD": "1"}
    done = subprocess.run(
        [SCRIPT], env={**os.environ, **words}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["audit"]


@pytest.mark.parametrize("arguments", [["unknown"], ["audit", "unknown"], ["audit", "--unknown"]])
def test_an_unknown_argument_exits_with_2(run_cli: RunCli, arguments: list[str]) -> None:
    outcome = run_cli(*arguments)
    assert outcome.code == ExitCode.USAGE
    assert "unknown" in outcome.err
    assert outcome.out == ""


def test_the_audit_prints_its_findings_and_exits_with_1(run_cli: RunCli) -> None:
    outcome = run_cli("audit", "settings", "--json")
    found = json.loads(outcome.out)
    assert outcome.code == ExitCode.FAILED
    assert {"state": "problem", "what": "environment"}.items() <= found[0].items()
    lines = run_cli("audit", "settings").out.splitlines()
    assert [line.split(":")[0].split() for line in lines] == [[one["state"], *one["what"].split()] for one in found]


def test_invalid_settings_are_problems_of_the_audit() -> None:
    command: list[str | Path] = [SCRIPT, "audit", "settings", "--json"]
    done = subprocess.run(
        command, env={**os.environ, "LOG_LEVEL": "LOUD"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == ExitCode.FAILED, done.stderr
    assert any("LOG_LEVEL" in one["text"] for one in json.loads(done.stdout))


def test_dev_starts_the_development_servers(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr("devtools.dev.main", lambda: started.append(1))
    assert run_cli("dev").code == 0
    assert started == [1]


def test_without_devtools_the_error_says_so(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "devtools", None)
    outcome = run_cli("dev")
    assert (outcome.code, "devtools/ is missing" in outcome.err) == (ExitCode.USAGE, True)


def test_an_outage_is_one_line_and_exits_with_4(capsys: pytest.CaptureFixture[str], run_cli: RunCli) -> None:
    async def ask() -> None:
        raise ConnectionError("no server\n[SQL: secret]")

    with pytest.raises(typer.Exit) as refused:
        console.run(ask(), OSError)
    assert refused.value.exit_code == ExitCode.UNAVAILABLE
    assert capsys.readouterr().err == "Error: no server\n"


def test_other_errors_are_raised(run_cli: RunCli) -> None:
    async def ask() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        console.run(ask(), OSError)


def test_text_of_clients_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\x1b[2J[red]a\r\nb\u202e"
    console.print_table(["name"], [(text,)])
    console.print_fields([("name", text), ("other", None)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert out.count("[red]a\ufffd\ufffdb\ufffd") == 2
    assert len(out.splitlines()) == 3


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(["a", "b"], [("x" * 500, "y" * 500)])
    assert capsys.readouterr().out.splitlines()[1].split() == ["x" * 500, "y" * 500]


def test_json_has_times_in_iso_8601(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json([{"at": datetime(2026, 11, 29, 18, tzinfo=UTC)}])
    assert json.loads(capsys.readouterr().out) == [{"at": "2026-11-29T18:00:00+00:00"}]


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", timedelta(seconds=90)), ("15m", timedelta(minutes=15)), ("2h", timedelta(hours=2)), ("7d", timedelta(7))],
)
def test_a_time_may_be_an_age(text: str, ago: timedelta) -> None:
    parsed = console.parse_time(text)
    assert parsed is not None
    assert abs(datetime.now(UTC) - ago - parsed) < timedelta(seconds=10)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-29T18:00Z", datetime(2026, 11, 29, 18, tzinfo=UTC)),
        ("2026-11-29T18:00+02:00", datetime(2026, 11, 29, 16, tzinfo=UTC)),
        ("2026-11-29T18:00", datetime(2026, 11, 29, 18).astimezone()),
        (None, None),
    ],
)
def test_a_time_without_a_zone_is_local(text: str | None, time: Any) -> None:
    assert console.parse_time(text) == time


@pytest.mark.parametrize("text", ["", "yesterday", "2x", "-1h", "999999d", "2026-13-01", "9999-12-31T23:59:59-23:00"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time"):
        console.parse_time(text)
