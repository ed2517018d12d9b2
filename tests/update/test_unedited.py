"""An unedited project, updated, equals a fresh copy with the same answers."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest
from allpairspy import AllPairs

from tests.update.world import ARCHIVES, World, next_tag, tree_of

CHANGES = [("use_flower", False), ("scheduler", "none"), ("auth", "none"), ("use_celery", False)]
# Every pair of release, profile and database.
PAIRS = [
    tuple(row)
    for row in AllPairs([list(ARCHIVES), ["production", "standard", "minimal"], ["postgresql", "sqlite", "mysql"]])
]
# `make test` updates from each release once: from the first ones with another answer, which the fresh copy has too.
QUICK = list(
    zip(
        list(ARCHIVES)[len(CHANGES) :],
        cycle(("production", "standard", "minimal")),
        cycle(("sqlite", "postgresql")),
    )
)
CELLS = [*QUICK, *(pytest.param(*pair, marks=pytest.mark.matrix) for pair in PAIRS if pair not in QUICK)]


@pytest.mark.parametrize(("tag", "profile", "database"), CELLS)
def test_equals_a_fresh_copy(world: World, tag: str, profile: str, database: str) -> None:
    person = world.project(tag, {"profile": profile, "database": database})
    updated = person.update()
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    assert tree_of(person.folder) == tree_of(world.copied(next_tag(), person.answers()))
    assert person.answers()["task_platform"] == (profile != "minimal")
    arrives = [int(number) for number in tag[1:].split(".")] < [0, 7, 0]
    assert ("The task platform is switched on" in updated.report) == (arrives and profile != "minimal")
    # Several releases ask for it, and the newest of them does not ask its own projects.
    assert updated.report.count("Run `uv sync`") == (next_tag() != f"{tag}.post1")
    assert ("--data task_platform=true" in updated.report) == (arrives and profile == "minimal")


# What an answer changes is the same from every release: each is tried from one.
@pytest.mark.parametrize(
    ("tag", "change"),
    [
        pytest.param(*pair, marks=[] if pair[1][0] in {"auth", "use_celery"} else pytest.mark.matrix)
        for pair in zip(ARCHIVES, CHANGES, strict=False)
    ],
    ids=str,
)
def test_with_another_answer(world: World, tag: str, change: tuple[str, Any]) -> None:
    person = world.project(tag)
    had = {path for path in tree_of(person.folder) if path.startswith("migrations/forge/")}
    assert had
    name, value = change
    updated = person.update("--data", f"{name}={value}")
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    answers = person.answers()
    assert answers[name] == value
    found = tree_of(person.folder)
    # A database may stand on a revision: it stays.
    kept = {path for path in found if path.startswith("migrations/forge/")}
    expected = tree_of(world.copied(next_tag(), answers))
    assert {path for path in kept if path not in expected} == (had if change == ("auth", "none") else set())
    assert {path: found[path] for path in found if path in expected or path not in kept} == expected


def test_an_update_to_the_same_release_changes_nothing(world: World) -> None:
    person = world.project(next_tag())
    person.write("app/tasks/mine.py", "x = 1\n")
    person.replace("README.md", "## Start", "## Begin")
    person.commit()
    before = tree_of(person.folder)
    updated = person.update()
    assert updated.code == 0
    assert f"Forge: up to date with {next_tag()}" in updated.report
    assert person.status() == ""
    assert tree_of(person.folder) == before
