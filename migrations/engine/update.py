"""What Copier passes to the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.version import Version

from .project import Project
from .release import Release


@dataclass(frozen=True)
class Update:
    """An update.

    Attributes:
        project: the project in the current folder.
        source: Copier's clone of the template.
        version_from: the old version as Copier records it: a tag, or a commit.
        version_to: the new version, likewise.
        old: the old release.
        new: the new release.
        releases: what the releases between them declare, oldest first.
        conflict: how conflicts are written.
        given: the questions that the user answers again, and the answers.
    """

    project: Project
    source: Path
    version_from: str
    version_to: str
    old: Version
    new: Version
    releases: Sequence[Release]
    conflict: Literal["inline", "rej"]
    given: Mapping[str, str]
