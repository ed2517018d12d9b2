"""`secret/.env.*`: every line stays, new settings are added, removed ones are told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from . import trees
from .files import write_whole
from .trees import Tree

_SETTING = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=")


@dataclass(frozen=True)
class Change:
    """What became of the settings of a file."""

    name: str
    added: list[str]
    removed: list[str]


def names(content: str) -> list[str]:
    """Return the settings that a file gives a value, in their order."""
    return [found[1] for line in content.splitlines() if (found := _SETTING.match(line))]


def with_new_settings(old: str, rendered: str, version: str) -> tuple[str, list[str]]:
    """Return a person's file with the settings of `rendered` that it lacks at its end, and their names."""
    known = set(names(old))
    added: list[str] = []
    lines: list[str] = []
    comment: list[str] = []
    for line in rendered.splitlines():
        found = _SETTING.match(line)
        if found and found[1] not in known:
            lines += [*comment, line]
            added.append(found[1])
        comment = [*comment, line] if line.startswith("#") else []
    if not added:
        return old, []
    newline = "\r\n" if "\r\n" in old else "\n"
    start = old if not old or old.endswith("\n") else old + newline
    return start + newline.join(["", f"# Added by the update to {version}.", *lines, ""]), added


def update(project: Path, rendered: Path, before: dict[str, set[str]], version: str) -> list[Change]:
    """Add what is new to the files that exist, and return what changed.

    `before` holds the settings that the old release wrote, by file.
    """
    changes = []
    for fresh in sorted(rendered.glob("secret/.env.*")):
        path = project / fresh.relative_to(rendered)
        # A fresh clone has none: `make secrets` writes it.
        if not path.exists():
            continue
        new = fresh.read_bytes().decode("utf-8", "surrogateescape")
        old = path.read_bytes().decode("utf-8", "surrogateescape")
        content, added = with_new_settings(old, new, version)
        removed = sorted((before.get(path.name, set()) - set(names(new))) & set(names(old)))
        if added:
            write_whole(path, content.encode("utf-8", "surrogateescape"))
        if added or removed:
            changes.append(Change(path.name, added, removed))
    return changes


def named_in(top: Path, base: Tree) -> dict[str, set[str]]:
    """Return the settings that the old release's examples name, by the settings file that they are for."""
    examples = {
        f".{Path(path).stem}": entry.oid
        for path, entry in base.items()
        if path.startswith("secret/env.") and path.endswith(".example")
    }
    content = trees.blobs(top, examples.values())
    return {name: set(names(content[oid].decode("utf-8", "replace"))) for name, oid in examples.items()}
