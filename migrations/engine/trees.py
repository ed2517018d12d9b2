"""Folders as git trees: read, written and merged without touching the work tree."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import git


@dataclass(frozen=True)
class Entry:
    """A file of a tree."""

    mode: str
    oid: str


Tree = dict[str, Entry]


@dataclass
class Merged:
    """The result of a merge; `stages` holds the unmerged paths as git's index does, `messages` git's words on each path.

    `renamed_by_both` holds the old path, the owner's and the release's of files that both sides have renamed.
    """

    tree: Tree
    stages: dict[str, dict[int, Entry]] = field(default_factory=dict)
    messages: dict[str, list[str]] = field(default_factory=dict)
    renamed_by_both: list[tuple[str, str, str]] = field(default_factory=list)


def read(top: Path, what: str) -> Tree:
    """Return the files of a commit or tree."""
    return dict(_entries(git.run(top, "ls-tree", "-r", "-z", "--full-tree", what)))


def _entries(listed: bytes) -> Iterator[tuple[str, Entry]]:
    for line in filter(None, listed.decode("utf-8", "surrogateescape").split("\0")):
        meta, _, path = line.partition("\t")
        mode, _, oid = meta.split()
        yield path, Entry(mode, oid)


def from_folder(top: Path, folder: Path) -> Tree:
    """Store a folder's files, ignored ones too, and return them."""
    with _index() as index:
        place = {
            **index,
            "GIT_DIR": git.text(top, "rev-parse", "--absolute-git-dir"),
            "GIT_WORK_TREE": str(folder),
        }
        git.run(folder, "add", "--all", "--force", "--sparse", ".", extra=place)
        tree = git.text(folder, "write-tree", extra=place)
    return read(top, tree)


def write(top: Path, tree: Mapping[str, Entry], prefix: str = "", beside: str | None = None) -> str:
    """Store a tree and return its id: below `prefix` in the tree of `beside`, in place of what is there."""
    with _index() as index:
        if beside:
            git.run(top, "read-tree", beside, extra=index)
            known = git.run(top, "ls-files", "-z", "--", prefix or ".", extra=index)
            git.run(top, "update-index", "-z", "--force-remove", "--stdin", data=known, extra=index)
        git.run(top, "update-index", "-z", "--index-info", data=_info(tree, prefix), extra=index)
        return git.text(top, "write-tree", extra=index)


def _info(tree: Mapping[str, Entry], prefix: str) -> bytes:
    lines = (f"{entry.mode} {entry.oid}\t{prefix}{path}\0" for path, entry in tree.items())
    return "".join(lines).encode("utf-8", "surrogateescape")


def renamed(top: Path, old: Tree, new: Tree) -> dict[str, str]:
    """Return the files that go by another path in `new`, old path to new."""
    listed = git.run(top, "diff-tree", "-r", "-z", "-M", "--diff-filter=R", write(top, old), write(top, new))
    parts = iter(listed.decode("utf-8", "surrogateescape").split("\0"))
    return {next(parts): next(parts) for meta in parts if meta}


def commit(top: Path, tree: str, message: str, parent: str | None = None) -> str:
    """Store a commit and return its id."""
    parents = ["-p", parent] if parent else []
    return git.text(top, "commit-tree", tree, *parents, "-m", message)


def blob(top: Path, oid: str) -> bytes:
    """Return a file's content."""
    return git.run(top, "cat-file", "blob", oid)


def store(top: Path, content: bytes) -> str:
    """Store a file's content and return its id."""
    return git.run(top, "hash-object", "-w", "--stdin", data=content).decode().strip()


def merge(top: Path, base: Tree, ours: Tree, theirs: Tree, labels: tuple[str, str]) -> Merged:
    """Merge three trees with git's own merge; renames and moved folders are followed.

    `labels` are refs that name the two sides in conflict markers; they are moved.
    """
    root = commit(top, write(top, base), "base")
    for label, tree in zip(labels, (ours, theirs), strict=True):
        git.run(top, "update-ref", f"refs/{label}", commit(top, write(top, tree), label, root))
    options = ["-c", "merge.directoryRenames=true", "-c", "merge.renames=true", "-c", "merge.renameLimit=32767"]
    options += ["-c", "merge.conflictStyle=merge"]
    printed = git.run(top, *options, "merge-tree", "--write-tree", "--messages", "-z", *labels, accept=(0, 1))
    return _parse(top, printed)


def _parse(top: Path, printed: bytes) -> Merged:
    parts = iter(printed.decode("utf-8", "surrogateescape").split("\0"))
    merged = Merged(read(top, next(parts)))
    for part in parts:
        if not part:
            break
        meta, _, path = part.partition("\t")
        mode, oid, stage = meta.split()
        merged.stages.setdefault(path, {})[int(stage)] = Entry(mode, oid)
    for count in parts:
        if not count:
            break
        paths = [next(parts) for _ in range(int(count))]
        kind, words = next(parts), next(parts)
        if kind == "CONFLICT (distinct modes)":
            _bring_together(merged, *paths)
            paths, words = paths[:1], words.partition(";")[0]
        if kind == "CONFLICT (rename/rename)" and len(paths) == 3:
            merged.renamed_by_both.append((paths[0], paths[1], paths[2]))
        # Older gits say so beside the conflict.
        if kind.startswith("CONFLICT") or "binary files" in words:
            for path in paths:
                merged.messages.setdefault(path, []).append(words.strip())
    return merged


def _bring_together(merged: Merged, path: str, *asides: str) -> None:
    """Record a link and a file at their one path: git moves a side away, where it looks like one that was deleted."""
    stages = merged.stages.setdefault(path, {})
    for aside in asides:
        stages.update(merged.stages.pop(aside, {}))
        merged.tree.pop(aside, None)
    merged.tree[path] = stages[2]


@contextmanager
def _index() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="forge-") as folder:
        yield {"GIT_INDEX_FILE": os.path.join(folder, "index")}
