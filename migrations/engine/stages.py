"""The two stages of an update, as functions; `__main__` has the table of them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.version import Version

from . import merging, preflight, rendering, reporting, settings_files, snapshot, trees, worktree
from .owners import Owners
from .problem import UNDO
from .project import Project
from .release import Release
from .rendering import Rendering
from .trees import Entry


@dataclass(frozen=True)
class Update:
    """What Copier passes to each stage.

    Attributes:
        project: the project in the current folder.
        source: Copier's clone of the template.
        version_from: the old version as Copier records it: a tag, or a commit.
        version_to: the new version, likewise.
        old: the old release.
        new: the new release.
        releases: what the releases between them declare, oldest first.
        conflict: how conflicts are written.
        given: the questions that the user answers again, and the answers.
    """

    project: Project
    source: Path
    version_from: str
    version_to: str
    old: Version
    new: Version
    releases: Sequence[Release]
    conflict: Literal["inline", "rej"]
    given: Mapping[str, str]


def before(update: Update) -> None:
    """Check that the update can start, save what git does not keep, and change the answers to what the release asks."""
    preflight.check(update.project, update.source, update.version_from, update.given)
    print(
        f"forge: if this update is interrupted: {UNDO}, then run it again. Git may first ask you to delete a lock file that "
        "a killed process left.",
        file=sys.stderr,
    )
    snapshot.save(update.project, update.version_from)
    update.project.rewrite_answers(update.releases)


def after(update: Update) -> None:
    """Replace Copier's patching by a merge of the old render, the project and the new render, and print the report."""
    project, top = update.project, update.project.top
    start = snapshot.load(project)
    answers, recorded = project.answers(), project.recorded_answers()
    old = Rendering(update.source, start.version_from, recorded)
    new = Rendering(update.source, update.version_to, answers)
    with tempfile.TemporaryDirectory(prefix="forge-") as scratch:
        fresh = Path(scratch) / "new"
        owners = Owners(update.source)
        theirs = rendering.tree(project, new, owners, fresh)
        base = rendering.base(project, old, owners, Path(scratch) / "old")
        ours = trees.read(top, f"{start.head}:{project.prefix}")
        written = (project.folder / project.answers_file).read_bytes()
        entry = Entry("100644", trees.store(top, written))
        outcome = merging.merge(top, base, ours, theirs, owners, (project.answers_file, entry))
        rejected = worktree.reject(top, outcome.merged, base, ours, theirs) if update.conflict == "rej" else {}
        worktree.write(project, start.head, outcome.merged, rejected, {*theirs, *base})
        snapshot.restore_secrets(project)
        settings = settings_files.named_in(top, base)
        changes = settings_files.update(project.folder, fresh, settings, str(update.new))
        rendering.keep(project, new, theirs)
    versions = (str(update.old), str(update.new))
    if update.old == update.new:
        # Two commits of one release.
        versions = (start.version_from, update.version_to)
    report = reporting.text(
        project, *versions, outcome, sorted(rejected), changes, update.releases, (recorded, answers)
    )
    snapshot.conclude(project, report, rejected)
    print(report, flush=True)
