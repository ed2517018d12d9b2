"""Who owns a generated file: see owners.yml at the top of the template."""

from __future__ import annotations

from pathlib import Path

import pathspec

from .files import parse_yaml


def is_revision(path: str) -> bool:
    """Return whether the file is one of the template's database revisions."""
    return path.startswith("migrations/forge/") and path.endswith(".py")


class Owners:
    """The owner classes of a release."""

    def __init__(self, source: Path) -> None:
        listed = parse_yaml((source / "owners.yml").read_bytes())
        self._seeded = pathspec.GitIgnoreSpec.from_lines(listed["seeded"])
        self._user = pathspec.GitIgnoreSpec.from_lines(listed["user"])

    def is_seeded(self, path: str) -> bool:
        """Return whether the template writes the file once, as a starter example."""
        return self._seeded.match_file(path)

    def is_users(self, path: str) -> bool:
        """Return whether the file belongs to the user alone."""
        return self._user.match_file(path)
