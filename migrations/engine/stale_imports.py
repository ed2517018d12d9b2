"""Find names that the releases renamed, in the owner's Python files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import trees
from .trees import Tree

_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)*")
_FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|.+)", re.MULTILINE)
_IMPORTED = re.compile(r"(\w+)(?:[ \t]+as[ \t]+(\w+))?")
_IMPORT = "import "
_STATEMENT = re.compile(r"(?:^|;)[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([^#;\r\n]+))", re.MULTILINE)
_MODULE_AS = re.compile(r"^[ \t]*import[ \t]+([\w.]+)[ \t]+as[ \t]+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class StaleImport:
    """A line that uses a renamed module, attribute or option."""

    path: str
    line: int
    old: str
    new: str


def find(top: Path, files: Tree, theirs: Tree, names: Mapping[str, str]) -> list[StaleImport]:
    """Search the Python files that are not exactly the release's: those that the owner added or edited.

    Args:
        top: the folder of the repository.
        files: the merged project.
        theirs: the new release.
        names: the new name of each old one, of a package after "import ". One that the project has as a module is not stale.
    """
    modules_here = _modules(files)
    stale = {old: new for old, new in names.items() if old.removeprefix(_IMPORT) not in modules_here}
    if not stale:
        return []
    own = {
        path: entry.oid
        for path, entry in sorted(files.items())
        if path.endswith(".py") and entry.is_file and entry != theirs.get(path)
    }
    content = trees.blobs(top, own.values())
    return [
        StaleImport(path, line, old.removeprefix(_IMPORT), stale[old])
        for path, oid in own.items()
        for line, old in sorted(_used(content[oid].decode("utf-8", "replace"), stale))
    ]


def hidden(files: Tree, theirs: Tree) -> list[str]:
    """Return the modules next to a package of the same name, which Python imports, if only one of them is the release's."""
    packages = {path.removesuffix("/__init__.py") + ".py": path for path in files if path.endswith("/__init__.py")}
    return [
        f"{path}: Python imports {package} instead; rename yours"
        for path, package in sorted(packages.items())
        if path in files and (path in theirs) != (package in theirs)
    ]


def modules(moved: Mapping[str, str]) -> dict[str, str]:
    """Return the old and new dotted names of the Python files among those that moved."""
    return {module(old): module(new) for old, new in moved.items() if old.endswith(".py") and new.endswith(".py")}


def module(path: str) -> str:
    """Return the dotted name of a Python file."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _modules(files: Tree) -> set[str]:
    """Return the modules of a project and the packages that they are in, also those without an `__init__.py`."""
    found = {module(path) for path in files if path.endswith(".py")}
    return found | {".".join(PurePosixPath(path).parent.parts) for path in files if path.endswith(".py")}


def _used(text: str, names: Mapping[str, str]) -> set[tuple[int, str]]:
    """Return the lines that use a name, with the longest where one contains another."""
    found = set()
    bound = _bound(text)
    for name in _NAME.finditer(text):
        first, dot, rest = name[0].partition(".")
        imported = bound.get(first) if dot else None
        used = _longest(f"{imported}.{rest}" if imported else name[0], names)
        # The name of a module is changed where it is imported, an attribute's where it is used.
        if used and (not imported or len(used) > len(imported)):
            found.add((text.count("\n", 0, name.start()) + 1, used))
    found |= _packages(text, names)
    for statement in _FROM.finditer(text):
        line = text.count("\n", 0, statement.start(1)) + 1
        used_here = {f"{statement[1]}.{name}" for name in re.findall(r"\w+", statement[2])} & names.keys()
        if used_here:
            found -= {(line, statement[1])}
            found |= {(line, name) for name in used_here}
    return found


def _packages(text: str, names: Mapping[str, str]) -> set[tuple[int, str]]:
    """Return the lines that import a package of `names`: its name alone may be a word of a comment."""
    found = set()
    for statement in _STATEMENT.finditer(text):
        modules_named = [statement[1]] if statement[1] else [part.strip() for part in statement[2].split(",")]
        line = text.count("\n", 0, statement.end()) + 1
        for one in modules_named:
            old = _IMPORT + one.partition(" ")[0].partition(".")[0]
            if old in names:
                found.add((line, old))
    return found


def _bound(text: str) -> dict[str, str]:
    """Return what each name that is imported from a module, or with `as`, stands for."""
    found = {statement[2]: statement[1] for statement in _MODULE_AS.finditer(text)}
    for statement in _FROM.finditer(text):
        for name in _IMPORTED.finditer(statement[2]):
            found[name[2] or name[1]] = f"{statement[1]}.{name[1]}"
    return found


def _longest(dotted: str, names: Mapping[str, str]) -> str:
    """Return the longest part from the start of a dotted name that is one of `names`, or an empty string."""
    while dotted and dotted not in names:
        dotted = dotted.rpartition(".")[0]
    return dotted
