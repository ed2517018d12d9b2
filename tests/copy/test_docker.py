"""The Dockerfile has no findings, and what is built and started is described once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Renderer

HADOLINT = Path(sys.executable).parent / "hadolint"


def findings(dockerfile: str) -> str:
    done = subprocess.run([HADOLINT, "-"], input=dockerfile, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize("database", ["postgresql", "mysql", "sqlite"])
@pytest.mark.parametrize("answers", [{"profile": "minimal", "use_docker": True}, {"profile": "production"}])
def test_the_dockerfile_has_no_findings(render: Renderer, database: str, answers: dict[str, Any]) -> None:
    dockerfile = (render({**answers, "database": database}) / "Dockerfile").read_text(encoding="utf-8")
    assert findings(dockerfile) == ""
    assert findings(dockerfile + "RUN apt-get install curl\n")


def test_without_docker_nothing_of_it_is_there(render: Renderer) -> None:
    project = render({"use_docker": False})
    assert [path.name for path in project.rglob("*") if "ocker" in path.name] == []
    assert sorted(path.name for path in (project / "secret").glob(".env.*")) == [".env.development", ".env.production"]
    assert "ocker compose" not in (project / "README.md").read_text(encoding="utf-8")
