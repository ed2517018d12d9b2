"""What the update did, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import changed_answers, git
from .merging import Outcome
from .problem import UNDO
from .project import Project
from .release import Release, sentences
from .settings_files import Change

_BOTH = "you and the release changed the same lines, or lines beside each other"


def text(
    project: Project,
    old: str,
    new: str,
    outcome: Outcome,
    rejected: Sequence[str],
    changes: Sequence[Change],
    releases: Sequence[Release],
    answers: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> str:
    """Return the report; `answers` are those of the project before and after."""
    unmerged = set(outcome.merged.stages)
    changed = git.text(project.folder, "diff", "--cached", "--name-status", "-M", "--relative", "HEAD")
    merged = [line for line in changed.splitlines() if line.split("\t")[-1] not in unmerged]
    result = [
        "",
        f"Forge: updated from {old} to {new}" if old != new else f"Forge: still {new}, with what changed here",
    ]
    result += _part("Merged", [line.replace("\t", "  ") for line in merged])
    result += _part(
        "CONFLICTS: resolve each, then `git add` it",
        [f"{path}: {'; '.join(map(_plain, outcome.merged.messages.get(path, [_BOTH])))}" for path in sorted(unmerged)],
    )
    result += _part("CONFLICTS: work each `.rej` in by hand, then delete it", [f"{path}.rej" for path in rejected])
    result += _part("Left deleted, as you deleted them", outcome.kept_deleted)
    result += _part("Kept, as a database may stand on them", outcome.kept_revisions)
    result += _part("Left as you have them (examples)", outcome.kept_seeded)
    result += _part("Answers", _answers(*answers))
    for change in changes:
        result += _part(f"New settings in secret/{change.name}", change.added)
        result += _part(f"No longer read, in secret/{change.name}", change.removed)
    renamed = [
        f"{old} is now {new}; the old name is still read" for one in releases for old, new in one.renamed.items()
    ]
    result += _part("Renamed settings", renamed)
    now = dict(answers[1])
    for title, told in (
        ("Changed behaviour", [one for release in releases for one in release.changes]),
        ("New, and switched off here", [one for release in releases for one in release.offers]),
        ("To do by hand", [one for release in releases for one in release.steps]),
    ):
        by_hand = changed_answers.steps(*answers) if title == "To do by hand" else []
        result += _part(title, [*by_hand, *sentences(told, now)])
    if len(result) == 2:
        return f"\nForge: up to date with {new}\n"
    result += ["", f"Look at it with `git diff HEAD`, test it, commit it. To undo all of it: {UNDO}", ""]
    return "\n".join(result)


def _plain(message: str) -> str:
    """Return what git says of a conflict, without its words for the usual one."""
    return _BOTH if message.startswith("CONFLICT (content)") else message


def _answers(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Tell each answer that is another now: Copier takes the default in silence where a question or a choice is gone."""
    told = []
    for name in sorted({*old, *new}):
        if name.startswith("_") or old.get(name) == new.get(name):
            continue
        if name not in old:
            told.append(f"{name}: {new[name]} (new)")
        elif name not in new:
            told.append(f"{name}: no longer asked; it was {old[name]}")
        else:
            told.append(f"{name}: {old[name]} -> {new[name]}")
    return told


def _part(title: str, entries: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"  {entry}" for entry in entries)] if entries else []
