"""What a process imports when it starts: each test asks a new interpreter."""

import json
import os
import subprocess
import sys

import pytest

from tests import ROOT

pytestmark = pytest.mark.processes

APPLICATION = "import app.core.celery; "
FORK = "from types import SimpleNamespace; from app.worker import fork; fork.prepare(SimpleNamespace(pool_cls={!r})); "
PRINT = "import gc, json, sys; print(json.dumps([gc.get_freeze_count(), *sys.modules]))"


def run(code: str, **environment: str) -> tuple[int, set[str]]:
    """Run code; return how many objects garbage collection ignores then, and the imported modules."""
    done = subprocess.run(
        [sys.executable, "-c", code + PRINT],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    frozen, *modules = json.loads(done.stdout.splitlines()[-1])
    return frozen, set(modules)


@pytest.fixture(scope="module")
def started() -> set[str]:
    """Give what a worker or beat has imported before the tasks."""
    # The URL of another kind of database may need SQLAlchemy to be checked.
    return run(f"import app.worker.__main__; {APPLICATION}", DATABASE_URL="postgresql://user:password@localhost/name")[
        1
    ]


def test_workers_and_beat_start_without_what_only_some_tasks_need(started: set[str]) -> None:
    heavy = {"aiosmtplib", "argon2", "asyncpg", "fastapi", "httpx2", "jinja2", "jwt", "PIL", "reportlab", "sqlalchemy"}
    assert "app.core.celery" in started
    assert started & heavy == set(), "import it in the function that needs it"


def test_workers_and_beat_start_without_the_other_commands_of_celery(started: set[str]) -> None:
    assert started & {"click_repl", "flower", "prompt_toolkit", "tornado"} == set()


@pytest.mark.parametrize(("pool", "shared"), [("prefork", True), ("threads", False), ("solo", False)])
def test_processes_that_are_forked_share_what_tasks_import(pool: str, shared: bool) -> None:
    frozen, modules = run(APPLICATION + FORK.format(pool))
    assert ("app.core.database" in modules, frozen > 0) == (shared, shared)
