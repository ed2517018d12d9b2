"""Merges a release into a project: git's merge, and the three owner classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from . import trees
from .owners import Owners, is_revision
from .trees import Entry, Merged, Tree

LABELS = ("forge/yours", "forge/template")


@dataclass
class Outcome:
    """What the update did, by path."""

    merged: Merged
    kept_deleted: list[str] = field(default_factory=list)
    kept_seeded: list[str] = field(default_factory=list)
    kept_revisions: list[str] = field(default_factory=list)


def merge(top: Path, base: Tree, ours: Tree, theirs: Tree, owners: Owners, answers: tuple[str, Entry]) -> Outcome:
    """Return the project with the release merged into it; `answers` is the answers file as Copier has written it."""
    base, theirs = dict(base), dict(theirs)
    kept_seeded = []
    kept_revisions = []
    for path in sorted({*base, *ours, *theirs}):
        if path == answers[0]:
            _settle(path, answers[1], base, ours, theirs)
        elif owners.is_users(path):
            _settle(path, ours.get(path), base, ours, theirs)
        elif is_revision(path) and path in ours and path not in {*base} & {*theirs}:
            # A database may stand on it: removed, Alembic would refuse that database for ever.
            if path not in theirs:
                kept_revisions.append(path)
            _settle(path, theirs.get(path, ours[path]), base, ours, theirs)
        elif owners.is_seeded(path) and path in {*base, *theirs}:
            untouched = ours.get(path) == base.get(path)
            if not untouched and theirs.get(path) != base.get(path):
                kept_seeded.append(path)
            _settle(path, theirs.get(path) if untouched else ours.get(path), base, ours, theirs)
    _follow_line_endings(top, base, ours, theirs)
    outcome = Outcome(
        trees.merge(top, base, ours, theirs, LABELS), kept_seeded=kept_seeded, kept_revisions=kept_revisions
    )
    _leave_deleted(outcome)
    return outcome


def _settle(path: str, wanted: Entry | None, base: Tree, ours: Tree, theirs: Tree) -> None:
    """Have the merge take `wanted` at `path`: only the release seems to have changed it."""
    for tree, entry in ((base, ours.get(path)), (theirs, wanted)):
        if entry is None:
            tree.pop(path, None)
        else:
            tree[path] = entry


def _follow_line_endings(top: Path, base: Tree, ours: Tree, theirs: Tree) -> None:
    """Give the release's text the line endings that the owner gave the file; otherwise every line conflicts."""
    moved: dict[str, str] | None = None
    for path, entry in ours.items():
        known = base.get(path)
        if known is None or known.oid == entry.oid or "120000" in (known.mode, entry.mode):
            continue
        old, own = trees.blob(top, known.oid), trees.blob(top, entry.oid)
        if b"\0" in own or b"\r\n" in old or own.count(b"\r\n") * 2 < own.count(b"\n") or b"\r\n" not in own:
            continue
        target = path
        if path not in theirs:
            moved = trees.renamed(top, base, theirs) if moved is None else moved
            target = moved.get(path, path)
        for tree, name in ((base, path), (theirs, target)):
            if name in tree:
                text = trees.blob(top, tree[name].oid).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
                tree[name] = Entry(tree[name].mode, trees.store(top, text))


def _leave_deleted(outcome: Outcome) -> None:
    """Leave deleted what the owner deleted and the release changed."""
    merged = outcome.merged
    for path in [path for path, stages in merged.stages.items() if set(stages) <= {1, 3} and 3 in stages]:
        # Not by the word alone: a file may be called so.
        if 1 not in merged.stages[path] and not any(
            words.startswith(("CONFLICT (modify/delete)", "CONFLICT (rename/delete)"))
            for words in merged.messages.get(path, [])
        ):
            continue
        del merged.stages[path]
        merged.messages.pop(path, None)
        merged.tree.pop(path, None)
        outcome.kept_deleted.append(path)
