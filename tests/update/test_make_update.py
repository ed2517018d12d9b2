"""`make update` as a person types it, with the Copier that it fetches."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from forge_template import project_environment
from tests.generated.life import INSTALL_LIMIT, TEST_LIMIT, find_python
from tests.update.random_edits import TOP_TAG
from tests.update.world import Person, Updated, World, next_tag

NOTE = "# The release's.\n"
# As .github/workflows/update.yml of a project passes them.
WEEKLY = "ARGS=--if-newer --skip-tests"


def later(template: Path) -> None:
    """Change a line that a person may have changed too."""
    path = template / "template" / "app" / "tasks" / "__init__.py"
    found = [*(template / "template" / "app").glob("*tasks*/__init__.py"), path]
    found[0].write_text(NOTE + found[0].read_text(encoding="utf-8"), encoding="utf-8")


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The releases and one more, as a project must have `make update` already."""
    world = World(tmp_path_factory.mktemp("ahead"))
    world.release(TOP_TAG, later)
    return world


@pytest.fixture
def person(ahead: World) -> Person:
    """A small project of the release before the last."""
    return ahead.project(next_tag(), {"profile": "minimal"})


def make_update(person: Person, *arguments: str) -> Updated:
    """Run it."""
    done = subprocess.run(
        ["make", "update", *arguments],
        cwd=person.folder,
        env=project_environment({"UV_PYTHON": find_python("3.11") or "3.11"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=INSTALL_LIMIT + TEST_LIMIT,
        check=False,
    )
    return Updated(done.returncode, done.stdout)


def test_updates_and_tests(person: Person) -> None:
    # It runs the tests that there are; all of a project's are run by tests/generated.
    for path in (person.folder / "tests").rglob("test_*.py"):
        if path.name != "test_api.py":
            path.unlink()
    person.commit()
    updated = make_update(person)
    assert updated.code == 0, updated.report
    assert " passed" in updated.report
    # Once as it happens, once where it can be read.
    assert updated.report.count(f"Forge: updated from {next_tag()[1:]} to {TOP_TAG[1:]}") == 2
    assert person.read("app/tasks/__init__.py").startswith(NOTE)
    person.commit("Update")
    again = make_update(person)
    assert again.code == 0, again.report
    assert "up to date" in again.report


def test_an_answer_is_changed_at_the_release_that_the_project_has(person: Person) -> None:
    updated = make_update(person, "ARGS=--skip-tests --vcs-ref=:current: --data use_cors=true")
    assert updated.code == 0, updated.report
    answers = person.answers()
    assert (answers["_commit"], answers["use_cors"]) == (next_tag(), True)
    assert not person.read("app/tasks/__init__.py").startswith(NOTE)


def test_failing_tests_are_a_failure(person: Person) -> None:
    # At once: before the first of them runs.
    person.write("tests/conftest.py", "raise RuntimeError\n" + person.read("tests/conftest.py"))
    person.commit()
    updated = make_update(person)
    assert updated.code == 2, updated.report
    assert "THE TESTS FAIL" in updated.report


@pytest.mark.parametrize("options", [(), pytest.param(("ARGS=--conflict rej",), marks=pytest.mark.matrix)])
def test_conflicts_are_a_failure(person: Person, options: tuple[str, ...]) -> None:
    person.write("app/tasks/__init__.py", "# Mine.\n" + person.read("app/tasks/__init__.py"))
    person.commit()
    updated = make_update(person, *options)
    assert updated.code == 2, updated.report
    name = "app/tasks/__init__.py" + (".rej" if options else "")
    assert f"CONFLICTS in: {name}" in updated.report
    # A commit without it has the lock file of the release before, which `uv sync --locked` in the image refuses.
    assert "run `uv sync`, which also refreshes uv.lock" in updated.report
    assert person.exists(name)
    assert " passed" not in updated.report
    person.undo()
    assert person.status() == ""


def test_the_weekly_workflow_updates_to_a_newer_release_and_leaves_the_tests_to_ci(person: Person) -> None:
    updated = make_update(person, WEEKLY)
    assert updated.code == 0, updated.report
    assert "merged without conflicts" in updated.report
    assert " passed" not in updated.report
    assert person.read("app/tasks/__init__.py").startswith(NOTE)


def test_the_weekly_workflow_renders_nothing_without_a_newer_release(ahead: World) -> None:
    person = ahead.project(TOP_TAG, {"profile": "minimal"})
    # An update would apply it, as `make update` does.
    person.replace(".copier-answers.yml", "use_cors: false", "use_cors: true")
    person.commit()
    updated = make_update(person, WEEKLY)
    assert updated.code == 0, updated.report
    assert "update: the template has no newer release." in updated.report
    assert person.status() == ""


def test_the_weekly_workflow_reports_an_unreachable_template(person: Person) -> None:
    answers = person.read(".copier-answers.yml")
    person.write(".copier-answers.yml", re.sub("(?m)^_src_path: .*$", f"_src_path: {person.top}/gone", answers))
    person.commit()
    updated = make_update(person, WEEKLY)
    assert updated.code == 2, updated.report
    assert f"The template is unreachable: {person.top}/gone" in updated.report


@pytest.mark.matrix
def test_the_lock_follows_what_is_merged(person: Person) -> None:
    environment = project_environment()
    subprocess.run(["uv", "lock", "--quiet"], cwd=person.folder, env=environment, check=True)
    # As a release does that changes what the project needs.
    person.replace("pyproject.toml", "\ndependencies = [\n", '\ndependencies = [\n  "iniconfig>=2",\n')
    person.commit()
    assert subprocess.run(
        ["uv", "lock", "--check", "--quiet"], cwd=person.folder, env=environment, check=False
    ).returncode
    updated = make_update(person, "ARGS=--skip-tests")
    assert updated.code == 0, updated.report
    subprocess.run(["uv", "lock", "--check", "--quiet"], cwd=person.folder, env=environment, check=True)
    assert "uv.lock" in person.status()


def test_an_unreachable_template_is_told(person: Person) -> None:
    person.write(
        ".copier-answers.yml",
        "".join(
            f"_src_path: {person.top}/gone\n" if line.startswith("_src_path") else line
            for line in person.read(".copier-answers.yml").splitlines(keepends=True)
        ),
    )
    person.commit()
    updated = make_update(person)
    assert updated.code == 2, updated.report
    assert f"The template is unreachable: {person.top}/gone" in updated.report
    assert "nothing was changed" in updated.report
    assert person.status() == ""


def test_an_untouched_file_that_nobody_committed_stops_it(person: Person) -> None:
    person.write("mine.txt", "x\n")
    updated = make_update(person)
    assert updated.code == 2, updated.report
    assert "Commit or stash these files first" in updated.report
    assert "?? mine.txt" in updated.report
    assert person.read("mine.txt") == "x\n"
