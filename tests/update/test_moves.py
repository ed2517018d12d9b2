"""Moves that a release declares: what becomes of the owner's files, without Copier, and in real updates of a tiny template."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import copier
import pytest
import yaml

from engine import merging, trees, worktree
from engine.merging import Outcome, Rules
from engine.moves import destination
from engine.owners import Owners
from engine.pieces import Sides
from engine.release import Release
from engine.reporting import folded
from engine.stale_imports import find, hidden, modules
from engine.trees import Entry
from forge_template import ROOT, commit_tree, git
from tests.update.world import Person, Updated

Files = Mapping[str, str]
LONG = "".join(f"line {number}\n" for number in range(12))
FIVE = "a = 1\nb = 2\nc = 3\nd = 4\ne = 5\n"
# How a content of these tests says that a file is executable, or a link.
EXECUTABLE, LINK = "#!", "->"


def mine(text: str) -> str:
    """Return a file with a line of the owner's at its end."""
    return f"{text}mine\n"


def theirs(text: str) -> str:
    """Return a file with a line of the release's at its start."""
    return f"theirs\n{text}"


@dataclass(frozen=True)
class Case:
    """Three trees, what the release moved, and the result: files, unmerged paths and words about conflicts."""

    base: Files
    ours: Files
    theirs: Files
    moved: Files
    result: Files
    stages: Mapping[str, set[int]] = field(default_factory=dict)
    words: Sequence[str] = ()
    kept_deleted: Sequence[str] = ()


CASES = {
    "edits of five lines follow": Case(
        {"old/a.py": FIVE},
        {"old/a.py": mine(FIVE)},
        {"new/b.py": theirs(FIVE)},
        {"old/a.py": "new/b.py"},
        {"new/b.py": theirs(mine(FIVE))},
    ),
    "a rewritten file follows": Case(
        {"a.py": FIVE}, {"a.py": mine(FIVE)}, {"b.py": FIVE + LONG * 3}, {"a.py": "b.py"}, {}, {"b.py": {1, 2, 3}}
    ),
    "empty files follow a folder": Case(
        {"old/__init__.py": "", "old/deep/__init__.py": "", "old/filled.py": ""},
        {"old/__init__.py": "", "old/deep/__init__.py": "mine\n", "old/filled.py": ""},
        {"new/__init__.py": "", "new/deep/__init__.py": "", "new/filled.py": "theirs\n"},
        {"old/": "new/"},
        {"new/__init__.py": "", "new/deep/__init__.py": "mine\n", "new/filled.py": "theirs\n"},
    ),
    "twins follow each to its own path": Case(
        {"a.py": LONG, "b.py": LONG},
        {"a.py": mine(LONG), "b.py": f"{LONG}of b\n"},
        {"w.py": LONG, "x.py": LONG},
        {"a.py": "x.py", "b.py": "w.py"},
        {"x.py": mine(LONG), "w.py": f"{LONG}of b\n"},
    ),
    "the most specific move wins": Case(
        {"old/a.py": FIVE, "old/deep/b.py": FIVE, "old/deep/c.py": FIVE},
        {"old/a.py": mine(FIVE), "old/deep/b.py": mine(FIVE), "old/deep/c.py": mine(FIVE)},
        {"new/a.py": FIVE, "other/b.py": FIVE, "c.py": FIVE},
        {"old/": "new/", "old/deep/": "other/", "old/deep/c.py": "c.py"},
        {"new/a.py": mine(FIVE), "other/b.py": mine(FIVE), "c.py": mine(FIVE)},
    ),
    "what the owner added stays when its folder moves away": Case(
        {"old/a.py": LONG, "old/deep/b.py": LONG},
        {"old/a.py": LONG, "old/deep/b.py": LONG, "old/mine.py": LONG, "old/deep/mine.py": "", "old/own/x": "1\n"},
        {"new/a.py": LONG, "new/deep/b.py": LONG},
        {"old/": "new/"},
        {"new/a.py": LONG, "new/deep/b.py": LONG, "old/mine.py": LONG, "old/deep/mine.py": "", "old/own/x": "1\n"},
    ),
    "an added file at the path of a move without a file": Case(
        {"old/a.py": FIVE},
        {"old/a.py": FIVE, "old/b.py": "mine\n"},
        {"new/a.py": FIVE},
        {"old/": "new/", "old/b.py": "new/b.py"},
        {"new/a.py": FIVE, "old/b.py": "mine\n"},
    ),
    "deleted stays deleted when it moved": Case({"a.py": LONG}, {}, {"b.py": LONG}, {"a.py": "b.py"}, {}),
    "deleted stays deleted when it moved and changed": Case(
        {"a.py": LONG},
        {},
        {"b.py": theirs(LONG)},
        {"a.py": "b.py"},
        {},
        kept_deleted=["a.py, which the release moved to b.py"],
    ),
    "deleted stays deleted when the release left something at the old path": Case(
        {"a.py": LONG}, {}, {"a.py": "from b import *\n", "b.py": LONG}, {"a.py": "b.py"}, {}
    ),
    "edits follow when the release left something at the old path": Case(
        {"a.py": LONG},
        {"a.py": mine(LONG)},
        {"a.py": "from b import *\n", "b.py": theirs(LONG)},
        {"a.py": "b.py"},
        {"a.py": "from b import *\n", "b.py": theirs(mine(LONG))},
    ),
    "both moved": Case(
        {"a.py": LONG},
        {"mine.py": mine(LONG)},
        {"new.py": theirs(LONG)},
        {"a.py": "new.py"},
        {"mine.py": theirs(mine(LONG)), "new.py": theirs(mine(LONG))},
        {"a.py": {1}, "mine.py": {2}, "new.py": {3}},
        ["mine.py: you moved a.py here, the release moved it to new.py"],
    ),
    "both moved, and something is left at the old path": Case(
        {"a.py": LONG},
        {"mine.py": mine(LONG)},
        {"a.py": "from new import *\n", "new.py": theirs(LONG)},
        {"a.py": "new.py"},
        {"a.py": "from new import *\n", "mine.py": theirs(mine(LONG)), "new.py": theirs(mine(LONG))},
        {"mine.py": {1, 2}, "new.py": {3}},
        ["mine.py: you moved a.py here, the release moved it to new.py"],
    ),
    "both moved, and the owner has a file at the new path": Case(
        {"a.py": LONG},
        {"mine.py": LONG, "new.py": "mine alone\n"},
        {"new.py": theirs(LONG)},
        {"a.py": "new.py"},
        {"mine.py": LONG},
        {"new.py": {1, 2, 3}},
    ),
    "both moved to one place": Case(
        {"a.py": FIVE},
        {"new.py": mine(FIVE)},
        {"new.py": theirs(FIVE)},
        {"a.py": "new.py"},
        {"new.py": theirs(mine(FIVE))},
    ),
    "the owner moved, the release changed": Case(
        {"a.py": LONG}, {"mine.py": mine(LONG)}, {"a.py": theirs(LONG)}, {}, {"mine.py": theirs(mine(LONG))}
    ),
    "the owner moved a folder with its parent, the release added to the parent": Case(
        {"old/deep/a.py": LONG},
        {"mine/deep/a.py": LONG},
        {"old/deep/a.py": theirs(LONG), "old/b.py": FIVE},
        {},
        {"mine/deep/a.py": theirs(LONG), "mine/b.py": FIVE},
    ),
    "the owner moved a folder to another name, the release added to its parent": Case(
        {"old/deep/a.py": LONG},
        {"mine/other/a.py": LONG},
        {"old/deep/a.py": theirs(LONG), "old/b.py": FIVE},
        {},
        {"mine/other/a.py": theirs(LONG), "old/b.py": FIVE},
    ),
    "the owner moved a folder, the release added to it": Case(
        {"old/a.py": LONG, "old/deep/b.py": f"{LONG}b\n"},
        {"own/a.py": LONG, "own/deep/b.py": f"{LONG}b\n"},
        {"old/a.py": theirs(LONG), "old/deep/b.py": f"{LONG}b\n", "old/c.py": FIVE, "old/deep/d.py": FIVE},
        {},
        {"own/a.py": theirs(LONG), "own/deep/b.py": f"{LONG}b\n", "own/c.py": FIVE, "own/deep/d.py": FIVE},
    ),
    "the owner moved half of a folder, the release added to it": Case(
        {"old/a.py": LONG, "old/b.py": FIVE},
        {"own/a.py": LONG, "old/b.py": FIVE},
        {"old/a.py": LONG, "old/b.py": FIVE, "old/c.py": FIVE},
        {},
        {"own/a.py": LONG, "old/b.py": FIVE, "old/c.py": FIVE},
    ),
    "the owner moved, the release removed": Case(
        {"a.py": LONG},
        {"mine.py": LONG},
        {},
        {},
        {"mine.py": LONG},
        {"mine.py": {1, 2}},
        ["mine.py: you moved a.py here, the release removed it"],
    ),
    "the owner moved to a path that the release needs": Case(
        {"a.py": LONG},
        {"b.py": mine(LONG)},
        {"a.py": theirs(LONG), "b.py": "new here\n"},
        {},
        {},
        {"b.py": {2, 3}},
        ["b.py: you have a file, moved from a.py, here, and the release has one"],
    ),
    "the owner moved to a path that the release needs, with a conflict": Case(
        {"a.py": LONG},
        {"b.py": f"mine\n{LONG}"},
        {"a.py": theirs(LONG), "b.py": "new here\n"},
        {},
        {},
        {"b.py": {2, 3}},
    ),
    "an empty file that the owner added is not the one that they deleted": Case(
        {"a/__init__.py": ""},
        {"mine/__init__.py": ""},
        {"a/__init__.py": "theirs\n"},
        {},
        {"mine/__init__.py": ""},
        kept_deleted=["a/__init__.py"],
    ),
    "removed and added are no move unless it is declared": Case(
        {"a.py": LONG},
        {"a.py": mine(LONG)},
        {"b.py": LONG},
        {},
        {"a.py": mine(LONG), "b.py": LONG},
        {"a.py": {1, 2}},
        ["a.py: CONFLICT (modify/delete)"],
    ),
    "a file that both added is not taken for one that the release removed": Case(
        {"a.py": LONG},
        {"a.py": mine(LONG), "b.py": "mine\n"},
        {"b.py": LONG},
        {},
        {"a.py": mine(LONG)},
        {"a.py": {1, 2}, "b.py": {2, 3}},
    ),
    "a move to what the release does not have is none": Case(
        {"a.py": FIVE, "b.py": FIVE},
        {"a.py": mine(FIVE), "b.py": FIVE},
        {"b.py": theirs(FIVE)},
        {"a.py": "nowhere.py", "b.py": "nowhere too.py"},
        {"a.py": mine(FIVE), "b.py": theirs(FIVE)},
        {"a.py": {1, 2}},
    ),
    "two files into one, the second edited": Case(
        {"a.py": FIVE, "b.py": LONG},
        {"a.py": FIVE, "b.py": mine(LONG)},
        {"c.py": FIVE + LONG},
        {"a.py": "c.py", "b.py": "c.py"},
        {"c.py": FIVE + mine(LONG)},
    ),
    "two files into one, both edited": Case(
        {"a.py": FIVE, "b.py": LONG},
        {"a.py": f"mine\n{FIVE}", "b.py": mine(LONG)},
        {"c.py": FIVE + LONG},
        {"a.py": "c.py", "b.py": "c.py"},
        {"c.py": f"mine\n{FIVE}{LONG}", "b.py": mine(LONG)},
        {"b.py": {1, 2}},
    ),
    "into a file that stays": Case(
        {"a.py": FIVE, "b.py": LONG},
        {"a.py": f"mine\n{FIVE}", "b.py": LONG},
        {"b.py": FIVE + LONG},
        {"a.py": "b.py"},
        {"b.py": f"mine\n{FIVE}{LONG}"},
    ),
    "swapped": Case(
        {"a.py": FIVE, "b.py": LONG},
        {"a.py": mine(FIVE), "b.py": f"mine\n{LONG}"},
        {"a.py": LONG, "b.py": theirs(FIVE)},
        {"a.py": "b.py", "b.py": "a.py"},
        {"a.py": f"mine\n{LONG}", "b.py": theirs(mine(FIVE))},
    ),
    "swapped by both": Case(
        {"a.py": FIVE, "b.py": LONG},
        {"a.py": LONG, "b.py": FIVE},
        {"a.py": theirs(LONG), "b.py": FIVE},
        {"a.py": "b.py", "b.py": "a.py"},
        {"a.py": theirs(LONG), "b.py": FIVE},
    ),
    "a chain": Case(
        {"a.py": FIVE, "b.py": LONG},
        {"a.py": mine(FIVE), "b.py": mine(LONG)},
        {"b.py": theirs(FIVE), "c.py": theirs(LONG)},
        {"a.py": "b.py", "b.py": "c.py"},
        {"b.py": theirs(mine(FIVE)), "c.py": theirs(mine(LONG))},
    ),
    "a chain by both": Case(
        {"a.py": FIVE, "b.py": LONG},
        {"b.py": FIVE, "c.py": LONG},
        {"b.py": theirs(FIVE), "c.py": theirs(LONG)},
        {"a.py": "b.py", "b.py": "c.py"},
        {"b.py": theirs(FIVE), "c.py": theirs(LONG)},
    ),
    "the case of a name": Case(
        {"docs/Readme.md": FIVE},
        {"docs/Readme.md": mine(FIVE)},
        {"docs/readme.md": theirs(FIVE)},
        {"docs/Readme.md": "docs/readme.md"},
        {"docs/readme.md": theirs(mine(FIVE))},
    ),
    "onto a file of the owner's": Case(
        {"a.py": FIVE},
        {"a.py": mine(FIVE), "new.py": "mine alone\n"},
        {"new.py": theirs(FIVE)},
        {"a.py": "new.py"},
        {
            "new.py": f"<<<<<<< forge/yours\nmine alone\n=======\n{theirs(mine(FIVE))}>>>>>>> forge/template\n",
        },
        {"new.py": {2, 3}},
        ["new.py: you have a file of your own here, and the release has one"],
    ),
    "onto the same file of the owner's": Case(
        {"a.py": FIVE}, {"a.py": FIVE, "b.py": FIVE}, {"b.py": FIVE}, {"a.py": "b.py"}, {"b.py": FIVE}
    ),
    "executable bits": Case(
        {"a.sh": FIVE, "b.sh": FIVE},
        {"a.sh": EXECUTABLE + FIVE, "b.sh": mine(FIVE)},
        {"x.sh": FIVE, "y.sh": EXECUTABLE + FIVE},
        {"a.sh": "x.sh", "b.sh": "y.sh"},
        {"x.sh": EXECUTABLE + FIVE, "y.sh": EXECUTABLE + mine(FIVE)},
    ),
    "symbolic links": Case(
        {"a": f"{LINK}here", "b": f"{LINK}here", "c": FIVE},
        {"a": f"{LINK}mine", "b": f"{LINK}here", "c": f"{LINK}mine"},
        {"x": f"{LINK}here", "y": f"{LINK}there", "z": FIVE},
        {"a": "x", "b": "y", "c": "z"},
        {"x": f"{LINK}mine", "y": f"{LINK}there", "z": f"{LINK}mine"},
    ),
    "a link against the release's changes": Case(
        {"c": FIVE}, {"c": f"{LINK}mine"}, {"z": theirs(FIVE)}, {"c": "z"}, {"z": f"{LINK}mine"}, {"z": {1, 2, 3}}
    ),
    "binary files": Case(
        {"a.bin": "\0a"},
        {"a.bin": "\0mine"},
        {"b.bin": "\0theirs"},
        {"a.bin": "b.bin"},
        {"b.bin": "\0mine"},
        {"b.bin": {1, 2, 3}},
    ),
    "line endings": Case(
        {"a.py": FIVE},
        {"a.py": mine(FIVE).replace("\n", "\r\n")},
        {"b.py": theirs(FIVE)},
        {"a.py": "b.py"},
        {"b.py": theirs(mine(FIVE)).replace("\n", "\r\n")},
    ),
    "odd names": Case(
        {'a "b"\t\\ ä.py': FIVE, "\x01\n.py": FIVE},
        {'a "b"\t\\ ä.py': mine(FIVE), "\x01\n.py": mine(FIVE)},
        {"new ü/'x'.py": theirs(FIVE), "new ü/\n.py": theirs(FIVE)},
        {'a "b"\t\\ ä.py': "new ü/'x'.py", "\x01\n.py": "new ü/\n.py"},
        {"new ü/'x'.py": theirs(mine(FIVE)), "new ü/\n.py": theirs(mine(FIVE))},
    ),
    "a folder where the owner has a file": Case(
        {"a.py": FIVE},
        {"a.py": FIVE, "new": "mine\n"},
        {"new/a.py": FIVE},
        {"a.py": "new/a.py"},
        {"new": "mine\n", "a.py": FIVE},
    ),
}


class Repository:
    """A git repository to merge in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        git(folder, "init", "--quiet")

    def tree(self, files: Files) -> dict[str, Entry]:
        """Store files."""
        return {path: self.entry(content) for path, content in files.items()}

    def entry(self, content: str) -> Entry:
        """Store a file."""
        mode = "120000" if content.startswith(LINK) else "100755" if content.startswith(EXECUTABLE) else "100644"
        text = content.removeprefix(LINK).removeprefix(EXECUTABLE)
        return Entry(mode, trees.store(self.folder, text.encode()))

    def contents(self, files: Mapping[str, Entry]) -> dict[str, str]:
        """Return files as the cases write them."""
        found = trees.blobs(self.folder, [entry.oid for entry in files.values()])
        marks = {"120000": LINK, "100755": EXECUTABLE, "100644": ""}
        return {path: marks[entry.mode] + found[entry.oid].decode() for path, entry in files.items()}

    def merge(self, case: Case) -> Outcome:
        """Merge."""
        rules = Rules(
            lambda path: destination(path, [Release("2.0.0", moved=case.moved)], {}),
            Owners(ROOT),
            (".copier-answers.yml", self.entry("")),
        )
        return merging.merge(self.folder, Sides(*map(self.tree, (case.base, case.ours, case.theirs))), rules)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("repository"))


def lines(contents: Mapping[str, str]) -> set[str]:
    return {line for content in contents.values() for line in content.replace("\r\n", "\n").split("\n")}


@pytest.mark.parametrize("name", CASES)
def test_a_declared_move(repository: Repository, name: str) -> None:
    case = CASES[name]
    outcome = repository.merge(case)
    stages = {path: set(found) for conflict in outcome.conflicts for path, found in conflict.stages.items()}
    assert stages == case.stages
    found = repository.contents(outcome.files)
    assert case.result.items() <= found.items()
    # Whatever is not listed is a conflict's.
    assert set(found) - set(case.result) <= set(stages)
    told = [f"{conflict.path}: {conflict.words}" for conflict in outcome.conflicts]
    for words in case.words:
        assert any(words in one for one in told), told
    assert outcome.kept_deleted == list(case.kept_deleted)
    unresolved = [
        entry for conflict in outcome.conflicts for each in conflict.stages.values() for entry in each.values()
    ]
    in_stages = repository.contents({str(number): entry for number, entry in enumerate(unresolved)})
    assert lines(case.ours) - lines(case.base) <= lines(found) | lines(in_stages)


@pytest.mark.parametrize("name", CASES)
def test_a_declared_move_with_conflict_rej(repository: Repository, name: str) -> None:
    case = CASES[name]
    outcome = repository.merge(case)
    conflicts = {conflict.path for conflict in outcome.conflicts}
    rejected = worktree.reject(repository.folder, outcome)
    assert set(rejected) == conflicts
    assert outcome.conflicts == []
    found = repository.contents(outcome.files)
    assert "<<<<<<<" not in "".join(found.values())
    # In place of a conflict stands what the owner had there.
    for path in conflicts & set(case.ours):
        assert lines({path: case.ours[path]}) <= lines({path: found[path]})
    patches = "".join(content.decode() for content in rejected.values())
    added = {line.removeprefix("+").rstrip("\r") for line in patches.splitlines()}
    assert lines(case.ours) - lines(case.base) <= lines(found) | added


def test_a_file_in_place_of_a_folder_is_reported(repository: Repository) -> None:
    outcome = repository.merge(CASES["a folder where the owner has a file"])
    assert outcome.left_out == ["new/a.py: you have new"]


EXAMPLE, REVISION = "app/tasks/example_tasks.py", "migrations/forge/accounts_0001.py"


@pytest.mark.parametrize(
    ("base", "ours", "release", "result", "is_kept"),
    [
        (FIVE, FIVE, theirs(FIVE), theirs(FIVE), False),
        (FIVE, mine(FIVE), FIVE, mine(FIVE), False),
        (FIVE, mine(FIVE), theirs(FIVE), mine(FIVE), True),
        (FIVE, mine(FIVE), None, mine(FIVE), True),
        (None, mine(FIVE), FIVE, mine(FIVE), True),
        (None, mine(FIVE), None, mine(FIVE), False),
        (FIVE, None, theirs(FIVE), None, True),
        (None, None, FIVE, FIVE, False),
    ],
)
def test_an_example_is_the_releases_until_the_owner_edits_it(
    repository: Repository, base: str | None, ours: str | None, release: str | None, result: str | None, is_kept: bool
) -> None:
    old, own, new = ({EXAMPLE: text} if text is not None else {} for text in (base, ours, release))
    outcome = repository.merge(Case(old, own, new, {}, {}))
    assert repository.contents(outcome.files).get(EXAMPLE) == result
    assert outcome.kept_seeded == ([EXAMPLE] if is_kept else [])
    assert outcome.conflicts == []


@pytest.mark.parametrize(
    ("base", "ours", "release", "result", "is_kept"),
    [
        (FIVE, FIVE, None, FIVE, True),
        (FIVE, mine(FIVE), None, mine(FIVE), True),
        (None, FIVE, theirs(FIVE), theirs(FIVE), False),
        (FIVE, FIVE, theirs(FIVE), theirs(FIVE), False),
        (FIVE, None, None, None, False),
    ],
)
def test_a_revision_that_the_release_no_longer_has_stays(
    repository: Repository, base: str | None, ours: str | None, release: str | None, result: str | None, is_kept: bool
) -> None:
    old, own, new = ({REVISION: text} if text is not None else {} for text in (base, ours, release))
    outcome = repository.merge(Case(old, own, new, {}, {}))
    assert repository.contents(outcome.files).get(REVISION) == result
    assert outcome.kept_revisions == ([REVISION] if is_kept else [])
    assert outcome.conflicts == []


def test_moves_of_several_releases_compose() -> None:
    releases = [
        Release("0.4.0", moved={"app/": "src/", "app/mail.py": "src/email.py"}),
        Release("0.5.0", moved=lambda answers: {"src/email.py": f"src/{answers['name']}/email.py"}),
    ]
    paths = {path: destination(path, releases, {"name": "shop"}) for path in ("app/a.py", "app/mail.py", "docs/a.md")}
    assert paths == {"app/a.py": "src/a.py", "app/mail.py": "src/shop/email.py", "docs/a.md": "docs/a.md"}
    # A move is of its release's paths: a later one does not apply to what an earlier one had elsewhere.
    assert destination("src/email.py", releases[:1], {}) == "src/email.py"


def test_the_report_folds_folders(repository: Repository) -> None:
    base = {f"app/services/{name}.py": FIVE for name in "abc"} | {"app/x.py": FIVE, "app/deep/y.py": FIVE}
    moves = {"app/services/": "app/features/accounts/", "app/x.py": "app/y.py", "app/deep/": "app/features/"}
    after = {destination(path, [Release("2.0.0", moved=moves)], {}): text for path, text in base.items()}
    outcome = repository.merge(Case(base, base | {"app/services/b.py": mine(FIVE)}, after, moves, {}))
    assert folded(outcome.moved) == [
        "app/deep/y.py -> app/features/y.py",
        "app/services/ -> app/features/accounts/ (3 files, 1 with your changes)",
        "app/x.py -> app/y.py",
    ]


IMPORTS = """import app.services.accounts
from app.services import mail, accounts as a
from app.services.accounts import User
from app import services
import app.services.accounts_of_mine
x = "app.services.mail.send"
import app.services.other, app.services.mail
import another.app.services.mail
from app.services import (
    mail,
)
"""


def test_imports_of_moved_modules_are_found_in_what_the_owner_wrote(repository: Repository) -> None:
    base = {"app/services/accounts.py": LONG, "app/services/mail.py": FIVE, "app/main.py": IMPORTS, "app/api.py": FIVE}
    after = {"app/accounts/service.py": LONG, "app/mail/__init__.py": FIVE, "app/main.py": IMPORTS, "app/api.py": FIVE}
    moved = {"app/services/accounts.py": "app/accounts/service.py", "app/services/mail.py": "app/mail/__init__.py"}
    ours = base | {"app/mine.py": IMPORTS, "app/api.py": f"{FIVE}import app.services.mail\n", "notes.txt": IMPORTS}
    outcome = repository.merge(Case(base, ours, after, moved, {}))
    found = find(repository.folder, outcome.files, repository.tree(after), modules(moved))
    accounts, mail = "app.services.accounts", "app.services.mail"
    assert sorted((one.path, one.line, one.old) for one in found) == [
        ("app/api.py", 6, mail),
        *(("app/mine.py", line, name) for line, name in ((1, accounts), (2, accounts), (2, mail), (3, accounts))),
        ("app/mine.py", 6, mail),
        ("app/mine.py", 7, mail),
        ("app/mine.py", 9, mail),
    ]
    assert {(one.old, one.new) for one in found} == {(accounts, "app.accounts.service"), (mail, "app.mail")}


USES = """from app.core.config import settings
from app.worker import records as r, status
import app.core.config as config
from app.models import Base, User
url = settings.celery.broker_url
print(settings.unknown, other.settings.celery, status.TaskStatus)
r.TaskStatus(config.settings.app)
@task(hides_arguments=True, mine_hides_arguments=1)
class Mine(models.User): ...
"""
NAMES = {
    "app.core.config.settings": "one for each group",
    "app.core.config.settings.app": "app.core.config.application.app_settings",
    "app.core.config.settings.celery": "app.core.config.celery.celery_settings",
    "app.worker.records.TaskStatus": "app.worker.status.TaskStatus",
    "app.models.User": "app.accounts.User",
    "app.services.mine": "app.features.theirs",
    "hides_arguments": "redact_arguments",
}


def test_removed_names_are_found_where_they_are_imported_and_where_they_are_used(repository: Repository) -> None:
    ours = {"app/mine.py": USES}
    outcome = repository.merge(Case({}, ours, {}, {}, {}))
    found = find(repository.folder, outcome.files, repository.tree({}), NAMES)
    assert [(one.line, one.old) for one in found] == [
        (1, "app.core.config.settings"),
        (4, "app.models.User"),
        (5, "app.core.config.settings.celery"),
        (7, "app.core.config.settings.app"),
        (7, "app.worker.records.TaskStatus"),
        (8, "hides_arguments"),
    ]
    assert {one.new for one in found} < set(NAMES.values())


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("import httpx\nhttpx.get('/')\nprint(httpx)\n", [1]),
        ("def test() -> None:\n    import httpx  # noqa\n", [2]),
        ("import json, httpx as client\nclient.get('/')\n", [1]),
        ("from httpx import AsyncClient\nimport httpx.other\nx: AsyncClient\n", [1, 2]),
        ("import json;import httpx\r\nhttpx.get('/')\r\n", [1]),
        ("import httpx2 as httpx\nhttpx.get('/')\nprint(httpx)\n", []),
        ("# httpx is gone: import httpx no more\nx = 'httpx'\ndef f(httpx=None): ...\n", []),
        ("from mine import httpx\nhttpx.get('/')\n", []),
    ],
)
def test_a_replaced_package_is_found_where_it_is_imported(repository: Repository, text: str, lines: list[int]) -> None:
    outcome = repository.merge(Case({}, {"app/mine.py": text}, {}, {}, {}))
    found = find(repository.folder, outcome.files, repository.tree({}), {"import httpx": "httpx2"})
    assert [(one.line, one.old) for one in found] == [(line, "httpx") for line in lines]


@pytest.mark.parametrize("path", ["app/services/mine.py", "app/services/mine/__init__.py", "app/services/mine/deep.py"])
def test_the_name_of_a_module_that_the_owner_wrote_is_not_stale(repository: Repository, path: str) -> None:
    ours = {path: "", "app/api.py": "from app.services.mine import deep\n"}
    outcome = repository.merge(Case({}, ours, {}, {}, {}))
    assert find(repository.folder, outcome.files, repository.tree({}), NAMES) == []


def test_the_name_of_a_package_is_that_of_its_folder() -> None:
    assert modules({"app/__init__.py": "core/deep/__init__.py", "app/a.py": "b.py", "notes.py": "notes.txt"}) == {
        "app": "core.deep",
        "app.a": "b",
    }
    assert modules({"__init__.py": "a.py"}) == {"__init__": "a"}


@pytest.mark.parametrize("is_package_theirs", [True, False])
def test_a_module_next_to_a_package_of_the_same_name_is_hidden(is_package_theirs: bool) -> None:
    entry = Entry("100644", "0")
    module, package = "app/mine.py", "app/mine/__init__.py"
    files = dict.fromkeys((module, package, "app/other/__init__.py"), entry)
    theirs = {package: entry} if is_package_theirs else {module: entry}
    assert hidden(files, theirs) == [f"{module}: Python imports {package} instead; rename yours"]
    # The release's own, and the owner's own, are theirs to know.
    assert hidden(files, files) == hidden(files, {}) == []


# --- a template of three releases ---------------------------------------------------------------------------------------

QUESTIONS = """
_subdirectory: template
name: {type: str, default: shop}
"""
OWNERS = {
    "template": ["/**"],
    "seeded": ["/app/examples/*.py", "/app/features/examples/*.py"],
    "user": ["/secret/.env.*"],
}
FIRST: Files = {
    "app/__init__.py": "",
    "app/services/__init__.py": "",
    "app/services/accounts.py": FIVE,
    "app/services/mail.py": LONG,
    "app/services/twin.py": FIVE,
    "app/services/removed.py": LONG,
    "app/services/deep/__init__.py": "",
    "app/core.py": LONG,
    "app/examples/one.py": FIVE,
    "app/examples/two.py": FIVE,
    "run.sh": FIVE,
    "README.md": LONG,
}
SECOND_MOVES = {
    "app/services/": "app/features/",
    "app/core.py": "app/core/base.py",
    "app/examples/": "app/features/examples/",
}
THIRD_MOVES = {"app/features/accounts.py": "app/features/accounts/service.py", "run.sh": "bin/run.sh"}


def released(files: Files, moves: Files, changed: Files) -> dict[str, str]:
    """Return the files of the next release."""
    moved = {destination(path, [Release("2.0.0", moved=moves)], {}): text for path, text in files.items()}
    return {path: text for path, text in {**moved, **changed}.items() if text != "removed"}


SECOND = released(
    FIRST,
    SECOND_MOVES,
    {
        "app/features/mail.py": theirs(LONG),
        "app/features/removed.py": "removed",
        "app/features/examples/two.py": theirs(FIVE),
        "README.md": theirs(LONG),
    },
)
THIRD = released(
    SECOND, THIRD_MOVES, {"app/features/accounts/service.py": theirs(FIVE), "app/features/deep/__init__.py": "x = 1\n"}
)


@dataclass(frozen=True)
class Tiny:
    """A template of three releases, each with moves, and projects made from it."""

    folder: Path

    @property
    def template(self) -> Path:
        return self.folder / "template"

    def write(self) -> None:
        """Make the releases, with this repository's engine."""
        shutil.copytree(
            ROOT / "migrations", self.template / "migrations", ignore=shutil.ignore_patterns("v[0-9]*", "__pycache__")
        )
        migrations = re.search(
            r"^_migrations:\n(?:[ #].*\n)+", (ROOT / "copier.yml").read_text(encoding="utf-8"), re.MULTILINE
        )
        assert migrations
        (self.template / "copier.yml").write_text(migrations[0] + QUESTIONS, encoding="utf-8")
        (self.template / "owners.yml").write_text(yaml.safe_dump(OWNERS), encoding="utf-8")
        for version, files, moves in (
            ("1.0.0", FIRST, {}),
            ("2.0.0", SECOND, SECOND_MOVES),
            ("3.0.0", THIRD, THIRD_MOVES),
        ):
            shutil.rmtree(self.template / "template", ignore_errors=True)
            for path, text in {
                **files,
                "{{ _copier_conf.answers_file }}.jinja": "{{ _copier_answers | to_nice_yaml -}}\n",
            }.items():
                target = self.template / "template" / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
            (self.template / "migrations" / "releases" / f"v{version.replace('.', '_')}.py").write_text(
                f"from engine.release import Release\n\nRELEASE = Release({version!r}, moved={dict(moves)!r})\n",
                encoding="utf-8",
            )
            commit_tree(self.template, version, f"v{version}")

    def project(self) -> Person:
        """Return a project of the first release."""
        folder = self.folder / f"project-{os.urandom(6).hex()}"
        copier.run_copy(str(self.template), folder, vcs_ref="v1.0.0", defaults=True, unsafe=True, quiet=True)
        git(folder, "init", "--quiet", "--initial-branch=main")
        person = Person(folder, folder)
        person.commit("Generated")
        return person


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    tiny = Tiny(tmp_path_factory.mktemp("tiny"))
    tiny.write()
    return tiny


def edit(person: Person) -> None:
    """Edit, add, delete and move, in every folder that moves away."""
    person.write("app/services/accounts.py", mine(FIVE))
    person.write("app/services/twin.py", f"{FIVE}of the twin\n")
    person.write("app/services/mine.py", "import app.services.accounts\n")
    person.write("app/services/deep/mine.py", "")
    person.write("app/examples/mine.py", "")
    person.write("app/examples/two.py", mine(FIVE))
    (person.folder / "app/services/deep/__init__.py").unlink()
    (person.folder / "app/core.py").rename(person.folder / "app/base.py")
    (person.folder / "run.sh").chmod(0o755)
    person.commit()


MERGED: Files = {
    "app/features/accounts/service.py": theirs(mine(FIVE)),
    "app/features/twin.py": f"{FIVE}of the twin\n",
    "app/features/mail.py": theirs(LONG),
    "app/features/examples/one.py": FIVE,
    "app/features/examples/two.py": mine(FIVE),
    "app/services/mine.py": "import app.services.accounts\n",
    "app/services/deep/mine.py": "",
    "app/examples/mine.py": "",
    "README.md": theirs(LONG),
    "bin/run.sh": FIVE,
    "app/base.py": LONG,
}
GONE = (
    "app/services/__init__.py",
    "app/services/accounts.py",
    "app/services/removed.py",
    "run.sh",
    "app/features/deep",
    "app/core.py",
)


def check(person: Person, updated: Updated) -> None:
    """Check what does not depend on how conflicts are written."""
    assert updated.code == 0, updated.report
    assert {path: person.read(path) for path in MERGED} == MERGED
    assert [path for path in GONE if person.exists(path)] == []
    assert (person.folder / "bin/run.sh").stat().st_mode & 0o111
    for words in (
        "Moved by the release:\n"
        "  app/examples/ -> app/features/examples/ (2 files)\n"
        "  app/services/ -> app/features/ (3 files, 1 with your changes)\n"
        "  app/services/accounts.py -> app/features/accounts/service.py, with your changes\n"
        "  run.sh -> bin/run.sh, with your changes\n",
        "Your own files that stay in a folder that moved away:\n"
        "  app/examples/mine.py\n  app/services/deep/mine.py\n  app/services/mine.py\n",
        "app/services/mine.py:1 uses app.services.accounts, which is now app.features.accounts.service",
        "Left deleted, as you deleted them:\n"
        "  app/services/deep/__init__.py, which the release moved to app/features/deep/__init__.py\n",
        "Left as you have them (examples):\n  app/features/examples/two.py\n",
    ):
        assert words in updated.report, updated.report


def test_an_update_over_two_releases_that_move(tiny: Tiny) -> None:
    person = tiny.project()
    edit(person)
    updated = person.update()
    check(person, updated)
    assert person.stages() == {"app/core.py": {1}, "app/base.py": {2}, "app/core/base.py": {3}}
    assert person.read("app/core/base.py") == LONG
    assert "app/base.py: you moved app/core.py here, the release moved it to app/core/base.py" in updated.report
    person.undo()
    assert person.status() == ""
    assert person.read("app/services/accounts.py") == mine(FIVE)


def test_an_update_that_moves_with_conflict_rej(tiny: Tiny) -> None:
    person = tiny.project()
    edit(person)
    updated = person.update("--conflict", "rej")
    check(person, updated)
    assert person.stages() == {}
    assert person.exists("app/base.py.rej")
    assert not person.exists("app/core")


def test_one_step_equals_two(tiny: Tiny) -> None:
    at_once, by_steps = tiny.project(), tiny.project()
    for person in (at_once, by_steps):
        edit(person)
        person.git("mv", "app/base.py", "app/core.py")
        person.commit()
    assert at_once.update().code == 0
    at_once.commit("Update")
    for tag in ("v2.0.0", "v3.0.0"):
        updated = by_steps.update("--vcs-ref", tag)
        assert updated.code == 0, updated.report
        assert by_steps.stages() == {}
        by_steps.commit(tag)
    assert at_once.git("rev-parse", "HEAD^{tree}") == by_steps.git("rev-parse", "HEAD^{tree}")
