"""The generated project's own tests and checks pass, in the combinations that most people will have."""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
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

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "minimal-sqlite": ("3.11", {"profile": "minimal", "database": "sqlite"}),
    "production-postgresql": ("3.11", {"profile": "production", "database": "postgresql"}),
    "packs-without-accounts-on-sqlite": ("3.11", {"profile": "production", "auth": "none", "database": "sqlite"}),
    "fastapi-without-celery": ("3.11", {"use_celery": False}),
    "standard-postgresql-on-3.13": ("3.13", {}),
}


@dataclass(frozen=True)
class Project:
    """An installed project and its interpreter."""

    folder: Path
    python: str


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in VARIANTS])
def project(request: pytest.FixtureRequest, render: Renderer) -> Iterator[Project]:
    version, answers = VARIANTS[request.param]
    python = find_python(version)
    if python is None:
        warnings.warn(f"NOT TESTED on Python {version}: this machine has none", stacklevel=1)
        pytest.skip(f"no Python {version} on this machine")
    scratch = Path(tempfile.mkdtemp(prefix="forge-"))
    folder = render.anew(answers, scratch / "project")
    install(folder, python)
    yield Project(folder, python)
    shutil.rmtree(scratch, ignore_errors=True)


def test_checks_are_clean(project: Project) -> None:
    check(project.folder, project.python)


def test_own_tests_pass(project: Project) -> None:
    own_tests(project.folder, project.python)


def test_a_machine_without_uv(render: Renderer, tmp_path: Path) -> None:
    """The Makefile installs one, which the hooks of `make check` find too."""
    python = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    folder = render.anew({"use_celery": False, "database": "sqlite"}, tmp_path / "project")
    commit_tree_without_secrets(folder)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "env", "git", "make", "grep", "mkdir", "uname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n', encoding="utf-8")
    (programs / "python3").chmod(0o755)
    alone = {"PATH": str(programs)}
    run(["make", "check"], folder, alone, timeout=CHECK_LIMIT)
