"""Property-based: whatever a person did to the template's files, an update loses none of it, and conflicts only where git does.

`make fuzz N=1000` runs more of it. A failure prints the edits, and the seed or the line that runs them again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st
from packaging.version import Version

from engine import merging, worktree
from engine import trees as engine_trees
from engine.merging import Rules
from engine.moves import destination
from engine.owners import Owners
from engine.pieces import Sides
from engine.release import Release, between
from forge_template import ROOT, git
from releases import all_releases, v0_5_0
from tests.update.random_edits import (
    ANSWERS_FILE,
    KINDS,
    MOVED,
    SMALL_TAG,
    TOP_TAG,
    Edit,
    Edited,
    Expected,
    File,
    Stages,
    Store,
    assert_as_expected,
    assert_nothing_lost,
    assert_parses,
    editable,
    everything_changes,
    plain,
    released_path,
    small_files_come,
)
from tests.update.world import ARCHIVES, FIRST, LAST, Person, World, next_tag

# One process makes the copies.
pytestmark = pytest.mark.xdist_group("random edits")

FUZZ = int(os.environ.get("FORGE_FUZZ", "0"))
ENGINE_EXAMPLES = FUZZ or 20
COMMAND_EXAMPLES = max(FUZZ // 50, 1)

# Each pair of a release and answers is a copy to make: `make test` takes the first and the last release, and two answers.
TAGS = tuple(ARCHIVES) if FUZZ else (FIRST, LAST)
ANSWERS: tuple[dict[str, Any], ...] = (
    {},
    {"profile": "minimal"},
    *([{"profile": "production", "database": "mysql"}] if FUZZ else []),
)
# What is answered anew at the update: features that go away take files along that a person has edited.
ANEW: tuple[dict[str, Any], ...] = ({}, *([{"auth": "none"}] if FUZZ else []), {"use_celery": False})
STEPS = (
    # Most often from the release whose small files all move.
    *((SMALL_TAG, TOP_TAG) for _ in TAGS),
    *((tag, TOP_TAG) for tag in (*TAGS, next_tag())),
    *((tag, next_tag()) for tag in TAGS),
)

COMMON = settings(
    deadline=None,
    print_blob=True,
    # The suite fails for what somebody changed, not for what was drawn today; `make fuzz` draws anew.
    derandomize=not FUZZ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

steps = st.sampled_from(STEPS)
answers = st.sampled_from(ANSWERS)
anew = st.sampled_from(ANEW)
edits = st.lists(
    st.builds(
        Edit,
        kind=st.sampled_from(KINDS),
        file=st.integers(0, 300),
        line=st.integers(0, 400),
        size=st.integers(1, 8),
    ),
    min_size=1,
    max_size=12,
)


@dataclass
class Trees:
    """The old render and the new one, as trees of the store."""

    base: str
    theirs: str
    candidates: list[str]
    contents: dict[str, bytes]
    modes: dict[str, str]


class Lab:
    """Renders of the releases, each made once."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder / "world")
        self.world.release(SMALL_TAG, small_files_come)
        self.world.release(TOP_TAG, everything_changes)
        (folder / "store").mkdir()
        git(folder / "store", "init", "--quiet")
        self.store = Store(folder / "store")
        self._fetched: dict[Path, str] = {}

    def tree(self, tag: str, given: dict[str, Any]) -> str:
        """Return the tree of a fresh copy."""
        folder = self.world.copied(tag, given)
        if folder not in self._fetched:
            self._fetched[folder] = self.store.fetch(folder)
        return self._fetched[folder]

    def trees(self, old: str, new: str, given: dict[str, Any], anew: dict[str, Any]) -> Trees:
        """Return both renders and what can be edited."""
        return self.between(self.tree(old, given), self.tree(new, {**given, **anew}))

    def between(self, base: str, theirs: str) -> Trees:
        """Return two trees and what can be edited: files that the release changes come first, and twice."""
        before, after = self.store.files(base), self.store.files(theirs)
        blobs = self.store.contents(file.oid for file in before.values())
        possible = editable(before)
        changed = [path for path in possible if after.get(path) != before[path]]
        return Trees(
            base,
            theirs,
            [*changed, *changed, *possible],
            {path: blobs[file.oid] for path, file in before.items()},
            {path: file.mode for path, file in before.items()},
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One for all examples."""
    return Lab(tmp_path_factory.mktemp("lab"))


def releases(old: str, new: str) -> list[Release]:
    """Return what the releases between two tags declare."""
    top = [Release("9.0.0", moved=MOVED)]
    return between([*all_releases(), *top], *(Version(tag.removeprefix("v")) for tag in (old, new)))


def crosses_features(old: str, new: str) -> bool:
    """Return whether 0.5.0, which moved features into folders, is between two tags."""
    before, after = (Version(tag.removeprefix("v")) for tag in (old, new))
    return before < Version("0.5.0") <= after


def moves(old: str, new: str, paths: Iterable[str], answers: Mapping[str, Any]) -> dict[str, str]:
    """Return the new path of each file that is moved, without the engine's help."""
    features = v0_5_0.RELEASE.moves(answers) if crosses_features(old, new) else {}
    early = {"app/core/limits.py": "app/core/body_limit.py", "tests/test_limits.py": "tests/test_body_limit.py"}
    found = {}
    for path in paths:
        moved = early.get(path, path) if old == "v0.1.0" else path
        folder = f"{moved.rpartition('/')[0]}/"
        moved = features.get(moved) or (moved.replace(folder, features[folder]) if folder in features else moved)
        moved = released_path(moved) if new == TOP_TAG else moved
        if moved != path:
            found[path] = moved
    return found


def edited(trees: Trees, chosen: list[Edit]) -> Edited:
    """Return the person's files."""
    person = Edited(dict(trees.contents), dict(trees.modes))
    person.apply(chosen, trees.candidates)
    note("\n".join(person.done))
    return person


@settings(COMMON, max_examples=ENGINE_EXAMPLES)
@given(step=steps, given_answers=answers, given_anew=anew, chosen=edits)
def test_the_merge_is_gits(
    lab: Lab,
    step: tuple[str, str],
    given_answers: dict[str, Any],
    given_anew: dict[str, Any],
    chosen: list[Edit],
) -> None:
    store = lab.store
    trees = lab.trees(*step, given_answers, given_anew)
    person = edited(trees, chosen)
    ours = store.changed(trees.base, person.written(), person.modes)
    # The oracle sees the person's text without its line endings, which no release should conflict with.
    unchanged_endings = store.changed(trees.base, person.contents, person.modes)
    expected = Expected.of(store, trees.base, unchanged_endings, trees.theirs, moves(*step, trees.contents, {}))
    event(f"conflicts: {bool(expected.stages)}")

    sides = Sides(*(engine_trees.read(store.folder, tree) for tree in (trees.base, ours, trees.theirs)))
    rules = Rules(
        lambda path: destination(path, releases(*step), {}),
        Owners(ROOT),
        (ANSWERS_FILE, sides.theirs[ANSWERS_FILE]),
    )
    outcome = merging.merge(store.folder, sides, rules)
    files = {path: File(entry.mode, entry.oid) for path, entry in outcome.files.items()}
    stages = {
        path: {number: File(entry.mode, entry.oid) for number, entry in found.items()}
        for conflict in outcome.conflicts
        for path, found in conflict.stages.items()
    }
    assert_as_expected(store, expected, files, stages)
    assert_nothing_lost(store, trees.base, ours, files, stages)
    assert_parses(store, files, stages)

    # With `--conflict rej` the person's text stands whole in the tree.
    if stages:
        worktree.reject(store.folder, outcome)
        assert outcome.conflicts == []
        left = {path: File(entry.mode, entry.oid) for path, entry in outcome.files.items()}
        assert_nothing_lost(store, trees.base, ours, left, {})
        assert_parses(store, left, {})


def in_index(person: Person) -> tuple[dict[str, File], Stages]:
    """Return the files and the unmerged paths of a project's index."""
    files: dict[str, File] = {}
    stages: Stages = {}
    for line in filter(None, person.git("ls-files", "--stage", "-z").split("\0")):
        meta, _, path = line.partition("\t")
        mode, oid, stage = meta.split()
        if stage == "0":
            files[path] = File(mode, oid)
        else:
            stages.setdefault(path, {})[int(stage)] = File(mode, oid)
    return files, stages


def write(person: Person, trees: Trees, mine: Edited) -> None:
    """Bring the person's files into a fresh project."""
    for path in set(trees.contents) - set(mine.contents):
        (person.folder / path).unlink()
    for path, content in mine.written().items():
        if trees.contents.get(path) != content:
            person.write(path, content)
    # Line endings that .gitattributes takes back are no change then.
    person.git("add", "--all")
    if person.status():
        person.commit()


@settings(COMMON, max_examples=COMMAND_EXAMPLES, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(tag=st.sampled_from([*TAGS, next_tag(), SMALL_TAG]), given_answers=answers, given_anew=anew, chosen=edits)
def test_the_command_writes_gits_merge(
    lab: Lab, tag: str, given_answers: dict[str, Any], given_anew: dict[str, Any], chosen: list[Edit]
) -> None:
    trees = lab.trees(tag, TOP_TAG, given_answers, given_anew)
    mine = edited(trees, chosen)
    person = lab.world.project(tag, given_answers)
    write(person, trees, mine)
    before = person.read("secret/.env.development")

    changed = [part for name, value in given_anew.items() for part in ("--data", f"{name}={value}")]
    updated = person.update(*changed)
    assert updated.code == 0, updated.report
    note(updated.report)

    store = Store(person.folder)
    base = store.fetch(lab.world.copied(tag, given_answers))
    # The release may have settled answers that an older project does not record.
    theirs = store.fetch(lab.world.copied(TOP_TAG, person.answers()))
    ours = store.git("rev-parse", "HEAD^{tree}").decode().strip()
    unchanged_endings = store.changed(base, mine.contents, mine.modes)
    expected = Expected.of(
        store, base, unchanged_endings, theirs, moves(tag, TOP_TAG, trees.contents, person.answers())
    )
    files, stages = in_index(person)
    # An unmerged path has no stage 0: what stands in the work tree is compared below.
    conflicted = {path: expected.files.pop(path) for path in expected.stages if path in expected.files}
    assert_as_expected(store, expected, files, stages)
    assert_nothing_lost(store, base, ours, files, stages)
    assert_parses(store, files, stages)
    wanted = store.contents(file.oid for file in conflicted.values())
    for path, file in conflicted.items():
        assert plain((person.folder / path).read_bytes()) == plain(wanted[file.oid]), path
    for path in stages:
        assert path in updated.report
    assert all(line[1] == " " for line in person.status().splitlines() if line[3:] not in stages), person.status()
    assert set(before.splitlines()) <= set(person.read("secret/.env.development").splitlines())
