"""docs/add-a-feature.md, followed in a scratch clone: its places are all that a feature touches."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import copier
import pytest

from forge_template import ROOT, commit_tree, git, project_environment, run, working_files
from tests.conftest import Answers
from tests.copy.sound import files

PAGE = ROOT / "docs" / "add-a-feature.md"


def follow(repository: Path) -> None:
    """Write the files that the page shows, and apply its changes to others."""
    blocks = re.findall(
        r"^`([^`\n]+)`:\n\n```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    for name, kind, content in blocks:
        if kind == "diff":
            # Found by their text: the numbers of the lines change with every other question. Without fuzz, which would put the
            # lines anywhere if that text is gone.
            command = ["patch", "--strip=1", "--unified", "--fuzz=0", "--no-backup-if-mismatch"]
            subprocess.run(command, cwd=repository, input=content, text=True, check=True, capture_output=True)
        elif "X_Y_Z" not in name:
            target = repository / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository in which the page was followed."""
    repository = tmp_path_factory.mktemp("feature") / "forge"
    # With its tests, which the clones of other tests leave out.
    for name in working_files():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, repository / name, follow_symlinks=False)
    commit_tree(repository, "Forge", "v99.0.0")
    follow(repository)
    git(repository, "add", "--all")
    return repository


def render(repository: Path, target: Path, answers: Answers) -> Path:
    copier.run_copy(str(repository), target, data=dict(answers), vcs_ref="HEAD", defaults=True, unsafe=True, quiet=True)
    return target


def test_a_feature_touches_at_most_nine_places(clone: Path) -> None:
    changed = git(clone, "diff", "--cached", "--name-only").splitlines()
    # A folder that is new is one place.
    places = {re.sub(r"(\{% if \w+ %\}greetings\{% endif %\})/.*", r"\1", path.strip('"')) for path in changed}
    listed = re.findall(r"^\| (\d+)\. `([^`]+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in listed] == list(range(1, len(listed) + 1))
    assert len(listed) <= 9
    plain = {re.sub(r"\{% if \w+ %\}(\w+)\{% endif %\}", r"\1", place) for place in places}
    missing = [place for place in plain if not any(place.startswith(path) for _, path in listed)]
    assert missing == []
    # The release's module is the one place that the next release makes.
    assert len(places) == len(listed) - 1


def test_it_is_there_only_where_it_is_asked_for(clone: Path, tmp_path: Path) -> None:
    git(clone, "commit", "--quiet", "--no-verify", "--message", "Add greetings")
    answers = {"profile": "minimal"}
    without = files(render(clone, tmp_path / "without", answers))
    project = render(clone, tmp_path / "with", {**answers, "use_greetings": True})
    new = sorted(set(files(project)) - set(without))
    assert new == [
        "app/features/greetings/__init__.py",
        "app/features/greetings/config.py",
        "app/features/greetings/feature.py",
        "app/features/greetings/routes.py",
        "app/tasks/greeting_task.py",
        "docs/greetings.md",
        "tests/greetings/__init__.py",
        "tests/greetings/test_greetings.py",
    ]
    run(["uv", "sync", "--python", sys.executable], project, timeout=300)
    python = str(project / ".venv" / "bin" / "python")
    output = run([python, "-m", "pytest", "tests/greetings", "tests/core/test_docs.py"], project, timeout=300)
    assert " passed" in output
    code = "import app.main; print(sorted(app.main.app.openapi()['paths']))"
    shown = subprocess.run(
        [python, "-c", code], cwd=project, env=project_environment(), capture_output=True, text=True, check=True
    )
    assert "/greetings/{name}" in shown.stdout
