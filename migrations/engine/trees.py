"""Folders as git trees: read, written and merged without touching the work tree."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import git


@dataclass(frozen=True)
class Entry:
    """A file of a tree."""

    mode: str
    oid: str

    @property
    def is_file(self) -> bool:
        """Return whether this is a plain file, not a symbolic link or a submodule."""
        return self.mode.startswith("100")


Tree = dict[str, Entry]
Stages = dict[int, Entry]
"""An unmerged path as git's index has it: 1 is the base, 2 the owner's side, 3 the release's."""


@dataclass(frozen=True)
class Commit:
    """A commit to store under a ref: these files, in place of everything below `prefix` in `parent`."""

    ref: str
    files: Mapping[str, Entry]
    message: str = "Forge"
    parent: str | None = None
    """A commit's id, or the ref of a commit that is stored in the same call."""
    prefix: str = ""


@dataclass
class Merged:
    """What git's merge gives: the files, the unmerged paths, and git's words on each path."""

    files: Tree
    stages: dict[str, Stages] = field(default_factory=dict)
    messages: dict[str, list[str]] = field(default_factory=dict)

    def add(self, other: Merged) -> None:
        """Add the result of another merge."""
        self.files |= other.files
        self.stages |= other.stages
        self.messages |= other.messages


def read(top: Path, what: str) -> Tree:
    """Return the files of a commit or tree."""
    return _entries(git.names(top, "ls-tree", "-r", "-z", "--full-tree", what))


def from_folder(git_folder: Path, folder: Path) -> Tree:
    """Store a folder's files, ignored ones too, and return them."""
    with _index() as index:
        place = {**index, "GIT_DIR": str(git_folder), "GIT_WORK_TREE": str(folder)}
        git.run(folder, "add", "--all", "--force", "--sparse", ".", extra=place)
        return _entries(git.names(folder, "ls-files", "--stage", "-z", extra=place))


def _entries(lines: Iterable[str]) -> Tree:
    """Parse `MODE TYPE OID<tab>PATH` and `MODE OID STAGE<tab>PATH`."""
    found = {}
    for line in lines:
        meta, _, path = line.partition("\t")
        mode, second, third = meta.split()
        found[path] = Entry(mode, third if len(third) > 1 else second)
    return found


def renamed(top: Path, old: Tree, new: Tree) -> dict[str, str]:
    """Return which files of `old` git takes for files of `new` under another name, by their similarity."""
    if not old or not new:
        return {}
    refs = ("refs/forge/renamed/old", "refs/forge/renamed/new")
    commit(top, [Commit(refs[0], old), Commit(refs[1], new)])
    options = ("-r", "-z", "-M", "-l0", "--no-rename-empty", "--diff-filter=R")
    parts = iter(git.text(top, "diff-tree", *options, *refs).split("\0"))
    found = {next(parts): next(parts) for meta in parts if meta}
    git.run(top, "update-ref", "--stdin", data="".join(f"delete {ref}\n" for ref in refs).encode())
    return found


def blobs(top: Path, oids: Iterable[str]) -> dict[str, bytes]:
    """Return the content of files."""
    wanted = sorted(set(oids))
    if not wanted:
        return {}
    printed = git.run(top, "cat-file", "--batch", data="".join(f"{oid}\n" for oid in wanted).encode())
    found, at = {}, 0
    for oid in wanted:
        end = printed.index(b"\n", at)
        size = int(printed[at:end].split()[2])
        found[oid] = printed[end + 1 : end + 1 + size]
        at = end + size + 2
    return found


def store(top: Path, content: bytes) -> str:
    """Store a file's content and return its id."""
    return git.text(top, "hash-object", "-w", "--stdin", data=content)


def commit(top: Path, commits: Sequence[Commit]) -> None:
    """Store commits, in one call of git."""
    marks = {one.ref: b":%d" % number for number, one in enumerate(commits, 1)}
    stream = []
    for one in commits:
        message = one.message.encode()
        stream.append(b"commit %b\nmark %b\n" % (one.ref.encode(), marks[one.ref]))
        stream.append(b"committer Forge <forge@localhost> 946684800 +0000\ndata %d\n%b\n" % (len(message), message))
        if one.parent:
            stream.append(b"from %b\n" % marks.get(one.parent, one.parent.encode()))
        stream.append(b"D %b\n" % _quoted(one.prefix.rstrip("/")) if one.prefix else b"deleteall\n")
        stream += [
            b"M %b %b %b\n" % (entry.mode.encode(), entry.oid.encode(), _quoted(one.prefix + path))
            for path, entry in one.files.items()
        ]
    # Paths that differ in case alone are different files here, whatever the file system makes of them.
    settings = ("-c", "core.ignoreCase=false", "-c", "fastimport.unpackLimit=1000000")
    git.run(top, *settings, "fast-import", "--quiet", "--force", data=b"".join(stream))


def _quoted(path: str) -> bytes:
    escaped = re.sub(rb'[\\"\x00-\x1f]', lambda found: b"\\%03o" % found[0][0], path.encode("utf-8", "surrogateescape"))
    return b'"%b"' % escaped


def merge(top: Path, base: Tree, ours: Tree, theirs: Tree, labels: tuple[str, str]) -> Merged:
    """Merge three trees with git's merge.

    Git guesses renames between files that a side removed and files that the same side added: pass no such files together.
    `labels` are refs that name the two sides in conflict markers; they are moved.
    """
    root = "refs/forge/merge-base"
    sides = zip(labels, (ours, theirs), strict=True)
    commit(top, [Commit(root, base), *(Commit(f"refs/{label}", files, parent=root) for label, files in sides)])
    options = ("-c", "merge.directoryRenames=false", "-c", "merge.conflictStyle=merge")
    return _parse(top, git.run(top, *options, "merge-tree", "--write-tree", "--messages", "-z", *labels, accept=(0, 1)))


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
            words = words.partition(";")[0]
        # Older gits report binary files next to the conflict.
        if kind.startswith("CONFLICT") or "binary files" in words:
            for path in paths:
                merged.messages.setdefault(path, []).append(words.strip())
    return merged


def _bring_together(merged: Merged, path: str, *asides: str) -> None:
    """Record a link and a file at their one path: git moves one of them away, and it would look deleted there."""
    stages = merged.stages.setdefault(path, {})
    for aside in asides:
        stages.update(merged.stages.pop(aside, {}))
        merged.files.pop(aside, None)
    merged.files[path] = stages[2]


@contextmanager
def _index() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="forge-") as folder:
        yield {"GIT_INDEX_FILE": os.path.join(folder, "index")}
