"""The task platform arrives as the profile has it, is removed by its answer, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.update.world import Person, World, next_tag, tree_of

MINE = "\n\n# Mine.\n"
USES = "from app.worker.dead_letters import KEY\n"
HIDDEN = "app/features/tasks/platform.py"
EDITED = ("README.md", "app/core/celery.py", "docs/celery.md")


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("tag", "answers"),
    [
        ("v0.6.0", {"profile": "standard"}),
        ("v0.1.0", {"profile": "production"}),
        ("v0.6.0", {"profile": "standard", "auth": "none", "scheduler": "none"}),
    ],
    ids=str,
)
def test_switched_off_and_on_leaves_no_trace(world: World, tag: str, answers: dict[str, object]) -> None:
    person = world.project(tag, answers)
    for off in (True, False):
        updated = person.update("--data", f"task_platform={str(not off).lower()}", "--vcs-ref", next_tag())
        assert updated.code == 0, updated.report
        assert person.stages() == {}
        person.commit()
        assert person.answers()["task_platform"] is not off
        assert tree_of(person.folder) == tree_of(world.copied(next_tag(), person.answers()))
        assert empty_folders(person.folder) == []
        assert ("platform" in {path.name for path in person.folder.rglob("*")}) is not off


def test_edited_projects_get_it_without_a_conflict(world: World) -> None:
    person = edited(world.project("v0.6.0"))
    updated = person.update()
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    assert "task_platform: True (new)" in updated.report
    assert "The task platform is switched on" in updated.report
    package = "app/features/tasks/platform/__init__.py"
    assert f"hides:\n  {HIDDEN}: Python imports {package} instead; rename yours\n" in updated.report
    line = "mine.py:1 uses app.worker.dead_letters.KEY, which is now app.worker.dead_letters.letters\n"
    assert f"  app/features/tasks/{line}" in updated.report
    assert_edits_are_there(person)
    person.commit()
    updated = person.update("--data", "task_platform=false", "--vcs-ref", next_tag())
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    assert "task_platform: True -> False" in updated.report
    assert "Entries of the schedule that are paused stay paused" in updated.report
    assert_edits_are_there(person)


def test_without_accounts_the_update_writes_the_operators_token(world: World) -> None:
    person = world.project("v0.6.0", {"auth": "none"})
    updated = person.update()
    assert updated.code == 0, updated.report
    assert "New settings in secret/.env.development:\n  TASKS_OPERATOR_TOKEN\n" in updated.report
    assert "refuses everybody without TASKS_OPERATOR_TOKEN" in updated.report
    tokens = {
        line.partition("=")[2]
        for name in ("development", "production")
        for line in person.read(f"secret/.env.{name}").splitlines()
        if line.startswith("TASKS_OPERATOR_TOKEN=")
    }
    assert tokens
    assert all(len(token) >= 32 and "<" not in token for token in tokens)


def edited(person: Person) -> Person:
    """Add a line to the end of files that the release changes, and files next to what it adds."""
    for path in EDITED:
        person.write(path, person.read(path) + MINE)
    person.write("app/features/tasks/mine.py", USES)
    person.write(HIDDEN, "MINE = 1\n")
    person.write("tests/tasks/test_mine.py", "def test_mine() -> None: ...\n")
    person.commit()
    return person


def assert_edits_are_there(person: Person) -> None:
    """Check them."""
    assert all(person.read(path).endswith(MINE) for path in EDITED)
    assert person.read("app/features/tasks/mine.py") == USES
    assert person.exists("tests/tasks/test_mine.py")


def empty_folders(project: Path) -> list[str]:
    """Return the folders without a file in them."""
    folders = [path for path in project.rglob("*") if path.is_dir() and ".git" not in path.relative_to(project).parts]
    return [path.name for path in folders if not any(path.iterdir())]
