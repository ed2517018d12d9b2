"""What the background tasks page prints works in a generated project, as its readers paste it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forge_template import project_environment, run
from tests.conftest import Renderer
from tests.generated.life import INSTALL_LIMIT, find_python, install

pytestmark = pytest.mark.matrix

SNIPPETS = Path(__file__).parent / "snippets"


@pytest.fixture
def project(render: Renderer, scratch: Path) -> Path:
    folder = render.fresh({}, scratch / "project")
    install(folder, find_python("3.11") or sys.executable)
    return folder


def test_pasted_snippets_run_on_a_real_worker(project: Path) -> None:
    shutil.copytree(SNIPPETS, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.txt", "README.md"))
    run(["uv", "add", "pandas", "pillow"], project, timeout=INSTALL_LIMIT)
    output = run(["uv", "run", "pytest", "-c", "pasted/pytest.ini", "pasted"], project, timeout=600)
    passed = re.search(r"\b(\d+) passed", output)
    assert passed, output
    assert int(passed[1]) >= 20
    assert "skipped" not in output


def test_wiring_names_the_tasks_that_do_not_exist(project: Path) -> None:
    """The page's schedule names two tasks that nobody wrote: the project's own test must say so."""
    arguments = ["uv", "run", "--no-sync", "pytest", "tests/worker/test_wiring.py"]
    run(arguments, project, timeout=180)
    application = project / "app" / "core" / "celery.py"
    pasted = (SNIPPETS / "beat_schedule.py.txt").read_text(encoding="utf-8")
    application.write_text(application.read_text(encoding="utf-8") + pasted, encoding="utf-8")
    done = subprocess.run(
        arguments,
        cwd=project,
        env=project_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    for task in ("app.tasks.backup_task.backup_database", "app.tasks.cleanup_task.cleanup_sessions"):
        assert task in done.stdout
