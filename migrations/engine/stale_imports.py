"""Find imports of modules that the release moved, in the owner's files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import trees
from .merging import Moved
from .trees import Tree

_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)+")
_FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|.+)", re.MULTILINE)


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
    own = {
        path: entry.oid
        for path, entry in sorted(files.items())
        if path.endswith(".py") and entry.is_file and entry != theirs.get(path)
    }
    content = trees.blobs(top, own.values())
    return [
        StaleImport(path, line, old, modules[old])
        for path, oid in own.items()
        for line, old in sorted(_named(content[oid].decode("utf-8", "replace"), modules))
    ]


def module(path: str) -> str:
    """Return the dotted name of a Python file."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _named(text: str, modules: Mapping[str, str]) -> set[tuple[int, str]]:
    """Return the lines that name a module, with the longest name where one is a package of another."""
    found = set()
    for name in _NAME.finditer(text):
        dotted = name[0]
        while dotted and dotted not in modules:
            dotted = dotted.rpartition(".")[0]
        if dotted:
            found.add((text.count("\n", 0, name.start()) + 1, dotted))
    for statement in _FROM.finditer(text):
        line = text.count("\n", 0, statement.start(1)) + 1
        imported = {f"{statement[1]}.{name}" for name in re.findall(r"\w+", statement[2])} & modules.keys()
        if imported:
            found -= {(line, statement[1])}
            found |= {(line, name) for name in imported}
    return found
