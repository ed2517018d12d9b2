"""Split an update into pieces: one per file, with what the old release, the owner and the new release have of it.

The releases declare the template's moves. The owner's moves are found by git, by similarity.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from .trees import Entry, Stages, Tree

Destination = Callable[[str], str]
Renamed = Callable[[Tree, Tree], Mapping[str, str]]


@dataclass(frozen=True)
class Sides:
    """The three trees of a merge: the old release, the project and the new release."""

    base: Tree
    ours: Tree
    theirs: Tree


@dataclass(frozen=True)
class Piece:
    """A file in the three trees, with None for a tree that does not have it.

    Attributes:
        path: where the merged file belongs. Two pieces can have the same path: the owner's file and the release's.
        source: its path in the old release.
        own: its path in the project.
        new: its path in the new release.
    """

    path: str
    base: Entry | None = None
    ours: Entry | None = None
    theirs: Entry | None = None
    source: str | None = None
    own: str | None = None
    new: str | None = None

    @property
    def versions(self) -> Stages:
        """Return what there is of it, by git's stage numbers."""
        sides = {1: self.base, 2: self.ours, 3: self.theirs}
        return {number: entry for number, entry in sides.items() if entry}

    @property
    def template_path(self) -> str:
        """Return the path that the template's rules name."""
        return self.new or self.source or self.path

    @property
    def is_deleted_by_owner(self) -> bool:
        """Return whether the owner deleted a file of the old release."""
        return self.base is not None and self.ours is None

    @property
    def is_moved_by_owner(self) -> bool:
        """Return whether the owner moved the file to a place of their own choice."""
        return self.source is not None and self.own is not None and self.own not in {self.source, self.new}

    @property
    def is_moved_by_both(self) -> bool:
        """Return whether the owner and the release moved the file to different places."""
        return self.is_moved_by_owner and self.new not in {self.source, None}


def split(sides: Sides, destination: Destination, renamed: Renamed) -> list[Piece]:
    """Return the pieces.

    Args:
        sides: the three trees.
        destination: returns where the releases moved a file of the old release to, or its own path.
        renamed: returns which of some files that are gone are which of some new ones.
    """
    new_paths = _new_paths(sides, destination)
    own_paths = _own_paths(sides, new_paths)
    gone = {path: entry for path, entry in sides.base.items() if path not in own_paths}
    moved_by_owner = renamed(gone, _others(sides.ours, own_paths))
    own_paths |= moved_by_owner
    pieces = []
    for source, entry in sides.base.items():
        own, new = own_paths.get(source), new_paths.get(source)
        place = own if own is not None and own not in {source, new} else new or source
        ours, theirs = (tree[path] if path else None for tree, path in ((sides.ours, own), (sides.theirs, new)))
        pieces.append(Piece(place, entry, ours, theirs, source, own, new))
    added_by_owner, added_by_release = _others(sides.ours, own_paths), _others(sides.theirs, new_paths)
    for path in sorted(added_by_owner.keys() & added_by_release.keys()):
        pieces.append(Piece(path, None, added_by_owner.pop(path), added_by_release.pop(path), None, path, path))
    pieces += [Piece(path, ours=entry, own=path) for path, entry in added_by_owner.items()]
    follow = _followed_folders(sides.ours, moved_by_owner)
    for path, entry in added_by_release.items():
        # Not what a release left at the old path of a file that it moved and the owner deleted.
        if path not in sides.base or path in own_paths:
            place = follow(path)
            pieces.append(Piece(path if place in sides.theirs else place, theirs=entry, new=path))
    return pieces


def _others(tree: Tree, paths: Mapping[str, str]) -> Tree:
    known = set(paths.values())
    return {path: entry for path, entry in tree.items() if path not in known}


def _new_paths(sides: Sides, destination: Destination) -> dict[str, str]:
    """Return the path in the new release of each file that it has; a move to where it has none is no move."""
    claims: defaultdict[str, list[str]] = defaultdict(list)
    for source in sides.base:
        declared = destination(source)
        new = declared if declared in sides.theirs else source
        if new in sides.theirs:
            claims[new].append(source)

    def rank(source: str, new: str) -> tuple[int, bool]:
        # Of several files that became one, the owner's edits decide which one the release continues.
        own = sides.ours.get(source)
        return (2 if own is None else 1 if own == sides.base[source] else 0, source != new)

    return {min(sources, key=lambda source: rank(source, new)): new for new, sources in claims.items()}


def _own_paths(sides: Sides, new_paths: Mapping[str, str]) -> dict[str, str]:
    """Return the path in the project of each file that the owner left in place, or moved where the release moved it."""
    base, ours = sides.base, sides.ours
    moved = {source: new for source, new in new_paths.items() if new != source}
    # First where one file took the path of another: by content, as the path alone does not tell.
    found = {
        source: new
        for source, new in moved.items()
        if new in base and ours.get(new) == base[source] != ours.get(source)
    }
    taken = set(found.values())
    for source in base:
        if source in found:
            continue
        if source in ours and source not in taken:
            found[source] = source
        elif source in moved and moved[source] in ours and moved[source] not in base:
            found[source] = moved[source]
    return found


def _followed_folders(ours: Tree, moved: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that puts a path of the release into the folder that the owner moved its folder to."""
    targets: defaultdict[PurePosixPath, Counter[PurePosixPath]] = defaultdict(Counter)
    for old, new in moved.items():
        source, target = PurePosixPath(old).parent, PurePosixPath(new).parent
        while source != target and source.name:
            targets[source][target] += 1
            if source.name != target.name:
                break
            source, target = source.parent, target.parent
    files = {PurePosixPath(path) for path in ours} if targets else set()
    folders = {parent for path in files for parent in path.parents}

    def follow(path: str) -> str:
        for folder in PurePosixPath(path).parents:
            if folder in targets and folder not in folders:
                (target, count), *others = targets[folder].most_common()
                place = target / PurePosixPath(path).relative_to(folder)
                if place not in files | folders and (not others or others[0][1] < count):
                    return str(place)
        return path

    return follow
