"""Where the releases moved the template's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .release import Release


def destination(path: str, releases: Iterable[Release], answers: Mapping[str, Any]) -> str:
    """Return where a file of the old release is after the moves of `releases`, oldest first."""
    for release in releases:
        path = _moved(path, release.moves(answers))
    return path


def _moved(path: str, moves: Mapping[str, str]) -> str:
    """Apply the most specific move: that of the file itself, or else that of the deepest folder."""
    if path in moves:
        return moves[path]
    folders = [old for old in moves if old.endswith("/") and path.startswith(old)]
    if not folders:
        return path
    deepest = max(folders, key=len)
    return moves[deepest] + path.removeprefix(deepest)
