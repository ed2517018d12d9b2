"""Find imports of modules that the release moved, in the owner's files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import trees
from .merging import Moved
from .trees import Tree


@dataclass(frozen=True)
class StaleImport:
    """A line that names a moved module."""

    path: str
    line: int
    old: str
    new: str


def find(top: Path, files: Tree, theirs: Tree, moved: Iterable[Moved]) -> list[StaleImport]:
    """Search the Python files that are not exactly the release's: those that the owner added or edited."""
    modules = {module(one.old): module(one.new) for one in moved if one.old.endswith(".py") and one.new.endswith(".py")}
    if not modules:
        return []
    known = set(theirs.values())
    own = {
        path: entry.oid
        for path, entry in sorted(files.items())
        if path.endswith(".py") and entry.is_file and entry not in known
    }
    content = trees.blobs(top, own.values())
    return [
        StaleImport(path, number, old, modules[old])
        for path, oid in own.items()
        for number, line in enumerate(content[oid].decode("utf-8", "replace").splitlines(), 1)
        for old in _named(line, modules)
    ]


def module(path: str) -> str:
    """Return the dotted name of a Python file."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _named(line: str, modules: Mapping[str, str]) -> set[str]:
    """Return the modules that a line names, the longest name where one is a package of another."""
    found = set()
    for name in re.findall(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)+", line):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        found.add(name)
    statement = re.match(r"\s*from\s+([\w.]+)\s+import\s+(.+)", line)
    if statement:
        imported = {f"{statement[1]}.{name}" for name in re.findall(r"\w+", statement[2])}
        found = (found - {statement[1]} if imported & modules.keys() else found) | imported
    return {name for name in found if name in modules}
