"""Every profile on every database, MariaDB included; FORGE_PYTHON chooses the Python version (3.11 without it)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from forge_template import run
from tests.conftest import Renderer
from tests.generated.life import check, find_python, install, own_tests

pytestmark = pytest.mark.matrix


def modules_of_the_database(project: Path) -> list[str]:
    """Return the test modules that use a database; the others prove the same with every one."""
    uses = re.compile(r"app\.core\.database|app\.features\.accounts|alembic")
    paths = [path for path in sorted((project / "tests").rglob("test_*.py")) if uses.search(path.read_text("utf-8"))]
    return [path.relative_to(project).as_posix() for path in paths]


@pytest.mark.parametrize("profile", ["minimal", "standard", "production"])
@pytest.mark.parametrize(
    "database",
    [
        "postgresql",
        "sqlite",
        # One server for all three: the tests of one project at a time.
        pytest.param("mysql", marks=pytest.mark.xdist_group("mariadb")),
    ],
)
def test_cell(request: pytest.FixtureRequest, render: Renderer, scratch: Path, profile: str, database: str) -> None:
    version = os.environ.get("FORGE_PYTHON", "3.11")
    python = find_python(version)
    assert python, f"no Python {version} on this machine"
    folder = render.fresh({"profile": profile, "database": database}, scratch / "project")
    install(folder, python)
    check(folder, python)
    if "FORGE_PYTHON" not in os.environ and (profile, database) != ("production", "mysql"):
        # On one machine test_life.py runs the tests of the other databases; a matrix of machines runs them all.
        return
    extra = {"TEST_DATABASE_URL": request.getfixturevalue("mariadb")} if database == "mysql" else {}
    chosen = [] if "FORGE_PYTHON" in os.environ else [f"ARGS={' '.join(modules_of_the_database(folder))}"]
    own_tests(folder, python, "test", *chosen, extra=extra)
    if database == "mysql":
        # What differs with the database and needs a worker: dumps and their restore.
        command = ["make", "test-all", "ARGS=tests/e2e/backup/test_backup_task.py"]
        assert "2 passed" in run(command, folder, {"UV_PYTHON": python, **extra}, timeout=300)
