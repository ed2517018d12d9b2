"""Write the report: what the update did, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from . import changed_answers, git
from .merging import Moved, Outcome
from .problem import UNDO
from .project import Project
from .release import Release, sentences
from .settings_files import Change
from .stale_imports import StaleImport

_SHOWN = 20


@dataclass(frozen=True)
class Facts:
    """What the report is written from.

    Attributes:
        old: the old version, as the user knows it.
        new: the new version.
        outcome: the result of the merge.
        rejected: the paths of the conflicts that are in `.rej` files.
        imports: the lines that use an old name.
        hidden: the modules that Python does not find next to a package of the same name.
        settings: what has changed in secret/.env.*.
        releases: the releases since the old version.
        answers_before: the answers that the project had.
        answers: the answers that it has now.
    """

    old: str
    new: str
    outcome: Outcome
    rejected: Sequence[str]
    imports: Sequence[StaleImport]
    hidden: Sequence[str]
    settings: Sequence[Change]
    releases: Sequence[Release]
    answers_before: Mapping[str, Any]
    answers: Mapping[str, Any]


def text(project: Project, facts: Facts) -> str:
    """Return the report."""
    outcome = facts.outcome
    title = f"updated from {facts.old} to {facts.new}" if facts.old != facts.new else f"still {facts.new}, with changes"
    result = ["", f"Forge: {title}"]
    result += _part("Merged", _merged(project, outcome))
    result += _part("Moved by the release", folded(outcome.moved))
    result += _part("Your own files that stay in a folder that moved away", _bounded(outcome.stayed))
    result += _part(
        "CONFLICTS: resolve each, then `git add` it",
        [f"{conflict.path}: {conflict.words}" for conflict in outcome.conflicts],
    )
    result += _part(
        "CONFLICTS: work each `.rej` in by hand, then delete it", [f"{path}.rej" for path in facts.rejected]
    )
    result += _part("Your files that use an old name", _imports(facts.imports))
    result += _part("Modules that a folder of the same name hides", facts.hidden)
    result += _part("Not written, because something of yours has the path", outcome.left_out)
    result += _part("Left deleted, as you deleted them", outcome.kept_deleted)
    result += _part("Kept, because they may be applied to a database", outcome.kept_revisions)
    result += _part("Left as you have them (examples)", outcome.kept_seeded)
    result += _part("Answers", _answers(facts.answers_before, facts.answers))
    for change in facts.settings:
        result += _part(f"New settings in secret/{change.name}", change.added)
        result += _part(f"No longer read, in secret/{change.name}", change.removed)
    renamed = [
        f"{old} is now {new}; the old name is still read"
        for release in facts.releases
        for old, new in release.renamed.items()
    ]
    result += _part("Renamed settings", renamed)
    for title, notes in (
        ("Changed behaviour", [note for release in facts.releases for note in release.changes]),
        ("New, and switched off here", [note for release in facts.releases for note in release.offers]),
        ("To do by hand", [note for release in facts.releases for note in release.steps]),
    ):
        by_hand = changed_answers.steps(facts.answers_before, facts.answers) if title == "To do by hand" else []
        result += _part(title, [*by_hand, *sentences(notes, facts.answers)])
    if len(result) == 2:
        return f"\nForge: up to date with {facts.new}\n"
    result += ["", f"Read the changes with `git diff HEAD`, test them, commit them. To undo everything: {UNDO}", ""]
    return "\n".join(result)


def _merged(project: Project, outcome: Outcome) -> list[str]:
    """Return what has changed in the index, without conflicts and moves: those have parts of their own."""
    listed = {path for conflict in outcome.conflicts for path in conflict.stages}
    listed |= {path for one in outcome.moved for path in (one.old, one.new)}
    parts = iter(
        git.names(project.folder, "diff", "--cached", "--name-status", "--no-renames", "--relative", "-z", "HEAD")
    )
    return [f"{status}  {path}" for status, path in zip(parts, parts, strict=True) if path not in listed]


def folded(moved: Iterable[Moved]) -> list[str]:
    """Return a line for each moved file, or one for all files of a folder that moved together."""
    parents = {one: (PurePosixPath(one.old), PurePosixPath(one.new)) for one in moved}
    whole = {(old.parent, new.parent) for old, new in parents.values() if old.name == new.name and old.parent.name}
    groups: defaultdict[tuple[PurePosixPath, PurePosixPath], list[Moved]] = defaultdict(list)
    for one, (old, new) in parents.items():
        while old.name == new.name and (old.parent, new.parent) in whole:
            old, new = old.parent, new.parent
        groups[old, new].append(one)
    lines = []
    for (old, new), files in groups.items():
        edited = sum(one.is_edited for one in files)
        if len(files) > 1:
            notes = f" ({len(files)} files{f', {edited} with your changes' if edited else ''})"
            lines.append(f"{old}/ -> {new}/{notes}")
        else:
            lines.append(f"{files[0].old} -> {files[0].new}{', with your changes' if edited else ''}")
    return sorted(lines)


def _imports(found: Sequence[StaleImport]) -> list[str]:
    # All of them: each has to be changed.
    return [f"{one.path}:{one.line} uses {one.old}, which is now {one.new}" for one in found]


def _bounded(lines: Sequence[str]) -> list[str]:
    left = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f"... and {left} more"] if left > 0 else list(lines)


def _answers(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return each answer that has changed: where a question or a choice is gone, Copier takes the default without a word."""
    lines = []
    for name in sorted({*old, *new}):
        if name.startswith("_") or old.get(name) == new.get(name):
            continue
        if name not in old:
            lines.append(f"{name}: {new[name]} (new)")
        elif name not in new:
            lines.append(f"{name}: no longer asked; it was {old[name]}")
        else:
            lines.append(f"{name}: {old[name]} -> {new[name]}")
    return lines


def _part(title: str, entries: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"  {entry}" for entry in entries)] if entries else []
