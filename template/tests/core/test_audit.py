"""`make audit`: each check can fail and, where the project allows it, succeed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app import audit
from app.core import audit as points
from app.core import audit_points
from app.core.config import load_groups
from app.core.config.application import app_settings
from app.core.config.database import database_settings
from app.core.database import session_scope
from tests import ROOT

SECRET = "hunter2-hunter2-hunter2"


def run(*parts: str, **variables: str) -> tuple[int, list[str]]:
    """Run the audit from its command line; return its exit code and its lines. stderr must be empty."""
    command = [sys.executable, "-m", "app.audit", *parts]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def found(findings: Any) -> dict[str, list[tuple[str, str]]]:
    """Group the findings by their subject: a list of (state, text) for each."""
    by_name: dict[str, list[tuple[str, str]]] = {}
    for finding in findings:
        by_name.setdefault(finding.what, []).append((finding.state, finding.text))
    return by_name


async def services() -> dict[str, list[tuple[str, str]]]:
    """Return the findings of the part `services`."""
    return found(await audit.collect(["services"]))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that replaces the project's, with a private settings file."""
    (tmp_path / "secret").mkdir(mode=0o755)
    file = tmp_path / "secret" / ".env.production"
    file.touch(mode=0o600)
    (tmp_path / "secret" / "env.production.example").touch(mode=0o644)
    monkeypatch.setattr(audit_points, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.processes
def test_each_unsafe_setting_is_a_problem_and_the_exit_code_is_1() -> None:
    code, lines = run(
        "settings",
        ENVIRONMENT="production",
        DATABASE_URL="postgresql://app:postgres@db/x",
        DATABASE_ECHO="true",
        LOG_LEVEL="DEBUG",
    )
    assert code == 1
    problems = [line for line in lines if line.startswith("problem  ")]
    for expected in ("DATABASE_URL has a default", "DATABASE_ECHO is on", "LOG_LEVEL is DEBUG"):
        assert [line for line in problems if expected in line], lines
    assert "ok       environment: production" in lines


def test_safe_settings_are_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_settings, "environment", "production")
    for group in load_groups():
        monkeypatch.setattr(type(group), "audit", lambda _: [])
    lines = found(audit_points.settings_findings())
    assert [lines[name][0][0] for name in ("environment", "settings", "logs")] == ["ok"] * 3


@pytest.mark.processes
def test_the_audit_of_development_is_a_problem() -> None:
    code, lines = run("settings", ENVIRONMENT="test")
    assert code == 1
    assert any(line.startswith("problem  environment: ENVIRONMENT is test") for line in lines)


def test_an_invalid_setting_is_one_line_without_a_traceback() -> None:
    code, lines = run(DATABASE_POOL_SIZE="many")
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("problem  settings: DATABASE_POOL_SIZE='many' (in the process environment): must be")
    code, lines = run(DATABASE_URL="", DATABASE_URL_FILE="/nowhere")
    assert code == 1
    assert "DATABASE_URL_FILE=/nowhere cannot be read" in lines[0]


@pytest.mark.parametrize(
    ("trusted", "compose", "state"),
    [
        (["127.0.0.1"], True, "problem"),
        (["127.0.0.1", "::1"], True, "problem"),
        (["127.0.0.1", "172.16.0.0/12"], True, "ok"),
        (["127.0.0.1"], False, "ok"),
    ],
)
def test_containers_must_trust_the_address_of_their_proxy(trusted: list[str], compose: bool, state: str) -> None:
    assert audit_points.proxy_finding(trusted, in_containers=compose).state == state


def test_settings_files_readable_by_other_users_are_problems(project: Path) -> None:
    file = project / "secret" / ".env.production"
    overlay = project / "kubernetes" / "overlays" / "production" / "app.env"
    assert found(audit_points.file_findings())["files"][0][0] == "ok"
    file.chmod(0o644)
    assert found(audit_points.file_findings())["files"] == [
        ("problem", "secret/.env.production is readable by every user of this host; run chmod 600 on it")
    ]
    (project / "secret").chmod(0o700)
    assert found(audit_points.file_findings())["files"][0][0] == "ok"
    overlay.parent.mkdir(parents=True, mode=0o755)
    overlay.touch()
    overlay.chmod(0o644)
    assert "overlays/production/app.env" in found(audit_points.file_findings())["files"][0][1]


def test_without_settings_files_and_git_the_checks_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_points, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    lines = found(audit_points.file_findings())
    assert (lines["files"][0][0], lines["git"][0][0]) == ("skipped", "skipped")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(audit_points.file_findings())["git"][0][0] == "skipped"


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_settings_files_tracked_by_git_are_problems(project: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    subprocess.run(["git", "add", "--force", "secret/env.production.example"], cwd=project, check=True)
    assert found(audit_points.file_findings())["git"] == [("ok", "git tracks no settings file")]
    subprocess.run(["git", "add", "--force", "secret"], cwd=project, check=True)
    ((state, line),) = found(audit_points.file_findings())["git"]
    assert state == "problem"
    assert line.startswith("git tracks secret/.env.production")


async def test_an_up_to_date_database_is_ok() -> None:
    lines = await services()
    assert (lines["database"], lines["migrations"][0][0]) == ([("ok", "reachable")], "ok")


async def test_a_database_that_is_behind_or_ahead_is_a_problem() -> None:
    async with session_scope() as db:
        known = list(await db.scalars(text("SELECT version_num FROM alembic_version")))
    try:
        async with session_scope() as db:
            await db.execute(text("DELETE FROM alembic_version"))
        ((state, line),) = (await services())["migrations"]
        # A project without revisions is never behind.
        assert (state, "not applied; run alembic upgrade heads" in line) == (
            ("problem", True) if known else ("ok", False)
        )
        async with session_scope() as db:
            await db.execute(text("INSERT INTO alembic_version VALUES ('unknown')"))
        ((state, line),) = (await services())["migrations"]
        assert (state, "a revision that is not in migrations/" in line) == ("problem", True)
    finally:
        async with session_scope() as db:
            await db.execute(text("DELETE FROM alembic_version"))
            for version in known:
                await db.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": version})


@pytest.mark.processes
def test_unreachable_servers_are_reported_without_secrets() -> None:
    scheme = {"postgresql": "postgresql", "mysql": "mysql"}.get(database_settings.sqlalchemy_url.get_backend_name())
    gone = {
        name: f"redis://:{SECRET}@127.0.0.1:1/{number}"
        for number, name in enumerate(("REDIS_CONNECTION_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"))
    }
    if scheme:
        gone["DATABASE_URL"] = f"{scheme}://app:{SECRET}@127.0.0.1:1/x"
    else:
        gone["DATABASE_URL"] = f"sqlite:///{ROOT}/alembic.ini"
    code, lines = run("services", **gone)
    assert code == 1
    assert SECRET not in "\n".join(lines)
    names = {
        "REDIS_CONNECTION_URL": "redis (cache)",
        "CELERY_BROKER_URL": "redis (broker)",
        "CELERY_RESULT_BACKEND": "redis (results)",
    }
    known = {type(group).variable(field) for group in load_groups() for field in type(group).model_fields}
    expected = {"database", *(name for variable, name in names.items() if variable in known)}
    states = {line.split(":")[0] for line in lines if "is unreachable: " in line}
    assert states == {f"problem  {name}" for name in expected}
    assert "skipped  migrations: the database is unreachable" in lines
    assert ("skipped  worker: Redis is unreachable" in lines) is ("CELERY_BROKER_URL" in known)


def test_a_password_in_an_error_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://u:a%40secret@h/x")
    assert points._without_secrets("no a@secret, a%40secret") == "no ***, ***"


@pytest.mark.parametrize(
    "invalid", [{"DATABASE_POOL_SIZE": "many"}, {"DATABASE_URL": "", "DATABASE_URL_FILE": "/nowhere"}]
)
def test_invalid_settings_are_reported_whenever_garbage_is_collected(invalid: dict[str, str]) -> None:
    command = [sys.executable, "-c", "import gc; gc.set_threshold(1); import app.core.config"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **invalid}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
