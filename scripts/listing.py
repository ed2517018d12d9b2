"""What a project consists of, as a text: examples/*.txt."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path

_WIDTH = 110


def listing(project: Path) -> str:
    """Return the files of a rendered project, folder by folder, and how many they are."""
    folders: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for path in sorted(path.relative_to(project) for path in project.rglob("*") if path.is_file()):
        folder = path.parent.as_posix()
        folders.setdefault(folder, []).append(path.name)
        counts["at the top" if folder == "." else f"in {path.parts[0]}/"] += 1
    lines = []
    for folder, names in sorted(folders.items()):
        lines.append("./" if folder == "." else f"{folder}/")
        # A file name is never broken at its hyphens.
        lines += textwrap.wrap(
            "  ".join(names),
            _WIDTH,
            initial_indent="    ",
            subsequent_indent="    ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    total = ", ".join(f"{count} {where}" for where, count in counts.most_common())
    return "\n".join([*lines, "", f"{counts.total()} files: {total}"]) + "\n"
