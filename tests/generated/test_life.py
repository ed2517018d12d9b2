"""The whole life of a generated project in `make test`; all tests of the combinations that most people have in the matrix."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from forge_template import run
from tests.conftest import Renderer
from tests.generated.life import (
    CHECK_LIMIT,
    check,
    commit_tree_without_secrets,
    find_python,
    install,
    own_tests,
)
from tests.generated.page import follow_features_page

# Its processes started: everything that `make dev` starts, and a task that a route waits for on a real worker.
STARTED = "tests/core/test_devtools.py tests/e2e/test_tasks.py -k 'make_dev or process_returns'"
# Of the tests that start processes, those in which several of them write to the database.
ON_SQLITE = "tests/core/test_devtools.py tests/e2e/test_outbox.py -k 'make_dev or outbox'"

VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # The longest first, so that it does not end alone.
    "production-postgresql": ("3.11", "test-all", {"profile": "production", "database": "postgresql"}),
    "standard-postgresql-on-3.13": ("3.13", "test-all", {}),
    "minimal-sqlite": ("3.11", "test", {"profile": "minimal", "database": "sqlite"}),
    "packs-without-accounts-on-sqlite": (
        "3.11",
        "test",
        {"profile": "production", "auth": "none", "database": "sqlite", "scheduler": "redbeat"},
    ),
    "fastapi-without-celery": ("3.11", "test-all", {"use_celery": False}),
    "standard-sqlite-on-3.14": ("3.14", "test", {"database": "sqlite"}),
}


def test_a_projects_whole_life(render: Renderer, scratch: Path) -> None:
    """Copied, installed, given a feature by docs/features.md, checked, tested and started.

    tests/update/test_make_update.py updates one as a user does.
    """
    python = find_python("3.11") or sys.executable
    folder = render.fresh({}, scratch / "project")
    install(folder, python)
    follow_features_page(folder, python)
    check(folder, python)
    own_tests(folder, python)
    output = run(["make", "test-all", f"ARGS={STARTED}"], folder, {"UV_PYTHON": python}, timeout=300)
    assert "4 passed" in output, output


@pytest.mark.matrix
# One at a time: each runs three processes, and what they wait for has limits.
@pytest.mark.xdist_group("projects")
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_test_of_a_project_passes(render: Renderer, scratch: Path, variant: str) -> None:
    version, target, answers = VARIANTS[variant]
    python = find_python(version)
    if python is None:
        warnings.warn(f"NOT TESTED on Python {version}: this machine has none", stacklevel=1)
        pytest.skip(f"no Python {version} on this machine")
    folder = render.fresh(answers, scratch / "project")
    install(folder, python)
    follow_features_page(folder, python)
    check(folder, python)
    own_tests(folder, python, target)
    if target == "test":
        run(["make", "test-all", f"ARGS={ON_SQLITE}"], folder, {"UV_PYTHON": python}, timeout=300)


@pytest.mark.matrix
def test_a_machine_without_uv(render: Renderer, tmp_path: Path) -> None:
    """The Makefile installs one, which the hooks of `make check` find too."""
    python = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    folder = render.fresh({"use_celery": False, "database": "sqlite"}, tmp_path / "project")
    commit_tree_without_secrets(folder)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "env", "git", "make", "grep", "mkdir", "uname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n', encoding="utf-8")
    (programs / "python3").chmod(0o755)
    alone = {"PATH": str(programs)}
    run(["make", "check"], folder, alone, timeout=CHECK_LIMIT)
