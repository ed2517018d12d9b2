"""The stage after: Copier has asked its questions, and patched the project in its own way."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import (
    merging,
    rendering,
    reporting,
    settings_files,
    snapshot,
    stale_imports,
    trees,
    worktree,
)
from .merging import Outcome, Rules
from .moves import destination
from .owners import Owners
from .pieces import Sides
from .rendering import Rendering
from .trees import Entry
from .update import Update


def run(update: Update) -> None:
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
        sides = Sides(base, trees.read(top, f"{start.head}:{project.prefix}"), theirs)
        outcome = merging.merge(top, sides, _rules(update, owners, answers))
        rejected = worktree.reject(top, outcome) if update.conflict == "rej" else {}
        worktree.write(project, start.head, outcome, rejected, {*theirs, *base})
        snapshot.restore_secrets(project)
        settings = settings_files.update(project.folder, fresh, settings_files.named_in(top, base), str(update.new))
        rendering.keep(project, new, theirs)
    # Between two commits of one release, the commits tell the versions apart.
    is_same = update.old == update.new
    facts = reporting.Facts(
        old=start.version_from if is_same else str(update.old),
        new=update.version_to if is_same else str(update.new),
        outcome=outcome,
        rejected=sorted(rejected),
        imports=stale_imports.find(top, outcome.files, theirs, _stale_names(update, outcome, answers)),
        hidden=stale_imports.hidden(outcome.files, theirs),
        settings=settings,
        releases=update.releases,
        answers_before=recorded,
        answers=answers,
    )
    report = reporting.text(project, facts)
    snapshot.conclude(project, report, rejected)
    print(report, flush=True)


def _stale_names(update: Update, outcome: Outcome, answers: Mapping[str, Any]) -> dict[str, str]:
    """Return the names that this update makes invalid: those that the releases declare, and the modules that it moved."""
    declared = {old: new for release in update.releases for old, new in release.removed_names(answers).items()}
    return declared | stale_imports.modules({one.old: one.new for one in outcome.moved})


def _rules(update: Update, owners: Owners, answers: Mapping[str, Any]) -> Rules:
    project = update.project
    written = (project.folder / project.answers_file).read_bytes()
    return Rules(
        destination=lambda path: destination(path, update.releases, answers),
        owners=owners,
        answers=(project.answers_file, Entry("100644", trees.store(project.top, written))),
    )
