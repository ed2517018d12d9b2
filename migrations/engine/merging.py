"""Merge a release into a project: by pieces, with the rules of the owner classes, and git's merge for each file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from . import pieces, trees
from .owners import Owners, is_revision
from .pieces import Destination, Piece, Sides
from .trees import Entry, Merged, Stages, Tree

LABELS = ("forge/yours", "forge/template")
_BOTH_CHANGED = "you and the release changed the same lines, or lines next to each other"


@dataclass(frozen=True)
class Conflict:
    """A file for the owner to resolve.

    Attributes:
        path: where the owner's version is.
        words: what is in conflict.
        stages: the unmerged paths in the index.
        versions: the base, the owner's and the release's version.
        copies: further paths that hold the merged file.
    """

    path: str
    words: str
    stages: Mapping[str, Stages]
    versions: Stages
    copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moved:
    """A file that the release moved, and whether it has edits of the owner's."""

    old: str
    new: str
    is_edited: bool


@dataclass
class Outcome:
    """The merged project, and what the report says about it."""

    files: Tree
    conflicts: list[Conflict] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    stayed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    kept_deleted: list[str] = field(default_factory=list)
    kept_seeded: list[str] = field(default_factory=list)
    kept_revisions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rules:
    """What decides about a file next to its content.

    Attributes:
        destination: where the releases moved a file of the old release.
        owners: the owner classes of the new release.
        answers: the path of the answers file, and the file that Copier has written.
    """

    destination: Destination
    owners: Owners
    answers: tuple[str, Entry]


def merge(top: Path, sides: Sides, rules: Rules) -> Outcome:
    """Return the project with the release merged into it."""
    outcome = Outcome({})
    split = pieces.split(sides, rules.destination, lambda gone, added: trees.renamed(top, gone, added))
    settled = [_settle(piece, rules, outcome) for piece in split]
    slots = _slots(_with_line_endings(top, settled))
    merged = _merge(top, slots)
    outcome.files = merged.files
    for slot, piece in slots.items():
        if slot == piece.path:
            _conclude(slot, piece, merged, outcome)
    displaced = [(slot, piece) for slot, piece in slots.items() if slot != piece.path]
    _conclude_displaced(top, displaced, merged, outcome)
    outcome.conflicts.sort(key=lambda conflict: conflict.path)
    _leave_out_clashes(slots, outcome)
    outcome.stayed = _stayed(slots.values(), sides.theirs)
    return outcome


def _stayed(settled: Collection[Piece], theirs: Tree) -> list[str]:
    """Return the owner's own files in folders that moved away."""
    left = {
        PurePosixPath(piece.source).parent
        for piece in settled
        if piece.source and piece.new not in {piece.source, None}
    }
    left -= {PurePosixPath(path).parent for path in theirs}
    added = [piece.path for piece in settled if not piece.source and not piece.new]
    return sorted(path for path in added if PurePosixPath(path).parent in left)


def _merge(top: Path, slots: Mapping[str, Piece]) -> Merged:
    """Merge each piece by itself. Git gets only those that both sides changed."""
    merged = Merged({})
    changed_by_both: dict[bool, dict[str, Piece]] = {True: {}, False: {}}
    for slot, piece in slots.items():
        if piece.theirs in (piece.base, piece.ours):
            file = piece.ours
        elif piece.ours == piece.base or piece.is_deleted_by_owner:
            file = piece.theirs if piece.ours == piece.base else None
        else:
            changed_by_both[piece.base is None][slot] = piece
            continue
        if file:
            merged.files[slot] = file
    # In two calls, or git would guess renames between files that were removed and files that were added.
    for group in changed_by_both.values():
        if group:
            base, ours, theirs = (
                {slot: piece.versions[number] for slot, piece in group.items() if number in piece.versions}
                for number in (1, 2, 3)
            )
            merged.add(trees.merge(top, base, ours, theirs, LABELS))
    return merged


def _leave_out_clashes(slots: Mapping[str, Piece], outcome: Outcome) -> None:
    """Leave out a file of the release that needs a folder where the owner has a file, or the other way round."""
    for path in list(outcome.files):
        for parent in map(str, PurePosixPath(path).parents):
            if path not in outcome.files or parent not in outcome.files:
                continue
            other, left_out = sorted((path, parent), key=lambda one: slots[one].own != one)
            del outcome.files[left_out]
            outcome.conflicts = [conflict for conflict in outcome.conflicts if conflict.path != left_out]
            outcome.left_out.append(f"{left_out}: you have {other}")
            piece = slots[left_out]
            if piece.own and piece.ours:
                outcome.files.setdefault(piece.own, piece.ours)


def _settle(piece: Piece, rules: Rules, outcome: Outcome) -> Piece:
    """Apply the rules of the owner classes: a file that is not merged has only one side that changed."""
    path = piece.template_path
    if piece.path == rules.answers[0]:
        return replace(piece, base=piece.ours, theirs=rules.answers[1])
    if rules.owners.is_users(path):
        return replace(piece, base=piece.ours, theirs=piece.ours)
    if is_revision(path) and piece.ours and not (piece.base and piece.theirs):
        # It may be applied to a database: without it, Alembic would refuse that database.
        if piece.theirs is None:
            outcome.kept_revisions.append(piece.path)
        return replace(piece, base=piece.ours, theirs=piece.theirs or piece.ours)
    if rules.owners.is_seeded(path) and (piece.base or piece.theirs):
        if piece.ours == piece.base:
            return piece
        if piece.theirs != piece.base:
            outcome.kept_seeded.append(piece.path)
        new = piece.own if piece.is_moved_by_owner else piece.new
        return replace(piece, base=piece.ours, theirs=piece.ours, new=new)
    return piece


def _with_line_endings(top: Path, settled: Iterable[Piece]) -> list[Piece]:
    """Give the release's text the line endings that the owner gave the file; otherwise every line conflicts."""
    found = list(settled)
    edited = {
        number: (piece.base, piece.ours)
        for number, piece in enumerate(found)
        if piece.base and piece.ours and piece.base.oid != piece.ours.oid and piece.base.is_file and piece.ours.is_file
    }
    content = trees.blobs(top, (entry.oid for entries in edited.values() for entry in entries))
    for number, (old, own) in edited.items():
        if b"\r\n" not in content[old.oid] and _is_crlf(content[own.oid]):
            piece = found[number]
            found[number] = replace(piece, base=_as_crlf(top, piece.base), theirs=_as_crlf(top, piece.theirs))
    return found


def _is_crlf(content: bytes) -> bool:
    return b"\0" not in content and content.count(b"\r\n") * 2 >= max(content.count(b"\n"), 1)


def _as_crlf(top: Path, entry: Entry | None) -> Entry | None:
    if entry is None or not entry.is_file:
        return entry
    text = trees.blobs(top, [entry.oid])[entry.oid].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return Entry(entry.mode, trees.store(top, text))


def _slots(found: Iterable[Piece]) -> dict[str, Piece]:
    """Give each piece a path of its own for git's merge; where two have the same path, the release's gets it."""
    slots: dict[str, Piece] = {}
    waiting = []
    for piece in found:
        if piece.theirs and not piece.is_moved_by_owner and piece.path not in slots:
            slots[piece.path] = piece
        else:
            waiting.append(piece)
    taken = {piece.path for piece in waiting} | set(slots)
    for piece in waiting:
        slot, number = piece.path, 0
        while slot in slots or (number and slot in taken):
            number += 1
            slot = f"{piece.path}~{number}"
        slots[slot] = piece
    return slots


def _conclude(slot: str, piece: Piece, merged: Merged, outcome: Outcome) -> None:
    """Record what became of a piece."""
    stages = merged.stages.pop(slot, {})
    file = outcome.files.get(slot)
    if piece.is_deleted_by_owner and piece.theirs not in (piece.base, None):
        is_moved = piece.source != slot
        outcome.kept_deleted.append(f"{piece.source}, which the release moved to {slot}" if is_moved else slot)
    elif piece.is_moved_by_owner and piece.base and piece.ours and not piece.theirs:
        outcome.files[slot] = piece.ours
        words = f"you moved {piece.source} here, the release removed it"
        outcome.conflicts.append(Conflict(slot, words, {slot: piece.versions}, piece.versions))
    elif piece.is_moved_by_both and piece.theirs and file:
        _conclude_moved_by_both(piece, file, outcome)
    elif stages:
        outcome.conflicts.append(Conflict(slot, _words(merged, slot), {slot: stages}, stages))
    if piece.source and piece.own == piece.source != piece.new == slot and slot in outcome.files:
        outcome.moved.append(Moved(piece.source, slot, piece.ours != piece.base))


def _conclude_moved_by_both(piece: Piece, file: Entry, outcome: Outcome) -> None:
    """Record a file that both moved as git does: the base at its old path, each side where it moved it."""
    assert piece.source
    assert piece.own
    assert piece.new
    words = f"you moved {piece.source} here, the release moved it to {piece.new}: keep one of the two"
    # Unless another file has that path.
    paths = {1: piece.source, 2: piece.own, 3: piece.new}
    paths |= {number: piece.own for number, path in paths.items() if path in outcome.files}
    stages: dict[str, Stages] = {}
    for number, entry in piece.versions.items():
        stages.setdefault(paths[number], {})[number] = entry
    copies = {paths[3]} - {piece.own}
    outcome.files |= dict.fromkeys(copies, file)
    outcome.conflicts.append(Conflict(piece.own, words, stages, piece.versions, tuple(copies)))


def _conclude_displaced(top: Path, displaced: Iterable[tuple[str, Piece]], merged: Merged, outcome: Outcome) -> None:
    """Bring a file of the owner's and one of the release's together at the path that both want."""
    pairs: dict[str, Stages] = {}
    words = {}
    for slot, piece in displaced:
        mine, other = outcome.files.pop(slot, None), outcome.files.get(piece.path)
        if piece.is_moved_by_owner:
            # Also where the release removed it.
            mine = mine or piece.ours
        stages = merged.stages.pop(slot, None)
        if mine and other and mine != other:
            if stages:
                # Not what has conflict markers in it: --conflict rej writes this file.
                mine = piece.ours or mine
            pairs[piece.path] = {2: mine, 3: other}
            origin = f", moved from {piece.source}," if piece.source else " of your own"
            words[piece.path] = f"you have a file{origin} here, and the release has one that it moved or added"
        elif mine and not other:
            outcome.files[piece.path] = mine
            if stages:
                said = _words(merged, slot).replace(slot, piece.path)
                outcome.conflicts.append(Conflict(piece.path, said, {piece.path: stages}, stages))
    if not pairs:
        return
    ours, theirs = ({path: stages[number] for path, stages in pairs.items()} for number in (2, 3))
    together = trees.merge(top, {}, ours, theirs, LABELS)
    outcome.conflicts = [conflict for conflict in outcome.conflicts if conflict.path not in pairs]
    for path, stages in pairs.items():
        outcome.files[path] = together.files[path]
        outcome.conflicts.append(Conflict(path, words[path], {path: stages}, stages))


def _words(merged: Merged, path: str) -> str:
    """Return what git says about a conflict, and plain words for the usual one."""
    messages = merged.messages.get(path, [])
    plain = [_BOTH_CHANGED if message.startswith("CONFLICT (content)") else message for message in messages]
    return "; ".join(plain) or _BOTH_CHANGED
