"""What a release does that needs a newer Python: CONTRIBUTING.md has the steps, and this takes them on a copy of the template."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.update.world import World, next_tag

RELEASE = '''"""9.0.0: Python 3.12."""

from __future__ import annotations

from engine.release import Answers, Release


def _python(answers: Answers) -> Answers:
    return {**answers, "python_version": "3.12"} if answers.get("python_version") == "3.11" else answers


RELEASE = Release(
    "9.0.0",
    answers=_python,
    changes=("The project needs Python 3.12: Celery no longer supports 3.11.",),
    steps=("Where Python 3.11 runs the project, install 3.12 first (`uv python install 3.12`). `uv sync` makes .venv again.",),
)
'''
EDITS = {
    "copier.yml": [
        ('  choices: ["3.11", "3.12", "3.13", "3.14"]\n', '  choices: ["3.12", "3.13", "3.14"]\n'),
        ("The code runs on 3.11 to 3.14.", "The code runs on 3.12 to 3.14."),
    ],
    "template/pyproject.toml.jinja": [
        ('requires-python = ">=3.11"\n', 'requires-python = ">=3.12"\n'),
        ('target-version = "py311"\n', 'target-version = "py312"\n'),
        ('python_version = "3.11"\n', 'python_version = "3.12"\n'),
        # An update must not ask for new syntax in the owner's code. A later release may.
        (
            '  "S603", "S607",\n]',
            '  "S603", "S607",\n  # The syntax of type parameters.\n  "UP040", "UP046", "UP047",\n]',
        ),
    ],
    "scripts/pins.py": [('PYTHON = "3.11"\n', 'PYTHON = "3.12"\n')],
}


def drop_python_3_11(template: Path) -> None:
    """Take the steps in the repository of the template."""
    for path, edits in EDITS.items():
        text = (template / path).read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
            text = text.replace(old, new)
        (template / path).write_text(text, encoding="utf-8")
    (template / "migrations" / "releases" / "v9_0_0.py").write_text(RELEASE, encoding="utf-8")


@pytest.mark.parametrize(
    ("python", "expected"), [("3.11", "3.12"), pytest.param("3.14", "3.14", marks=pytest.mark.matrix)]
)
def test_an_update_moves_a_project_from_a_python_that_the_release_drops(
    own_world: World, python: str, expected: str
) -> None:
    person = own_world.project(next_tag(), {"python_version": python, "ci": "github", "use_docker": True})
    person.replace("pyproject.toml", '  "rich>=15,<16",\n', '  "mine>=1",\n  "rich>=15,<16",\n')
    person.commit()
    own_world.release("v9.0.0", drop_python_3_11)
    updated = person.update()
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    assert "needs Python 3.12" in updated.report
    assert (f"python_version: {python} -> {expected}" in updated.report) == (python != expected)
    assert person.answers()["python_version"] == expected
    assert f'UV_PYTHON: "{expected}"' in person.read(".github/workflows/ci.yml")
    assert f"FROM python:{expected}-slim" in person.read("Dockerfile")
    project = tomllib.loads(person.read("pyproject.toml"))
    assert (project["project"]["requires-python"], "mine>=1" in project["project"]["dependencies"]) == (">=3.12", True)
    # The generated code is not rewritten in the syntax of a newer Python, so the owner's need not be.
    subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "."], cwd=person.folder, check=True)
