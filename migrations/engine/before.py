"""The stage before: Copier has rendered the old release, and not yet touched the project."""

from __future__ import annotations

import sys

from . import preflight, snapshot
from .problem import UNDO
from .update import Update


def run(update: Update) -> None:
    """Check that the update can start, save what git does not keep, and change the answers to what the release asks."""
    preflight.check(update.project, update.source, update.version_from, update.given)
    print(
        f"forge: if this update is interrupted: {UNDO}, then run it again. Git may first ask you to delete a lock file that "
        "a killed process left.",
        file=sys.stderr,
    )
    snapshot.save(update.project, update.version_from)
    update.project.rewrite_answers(update.releases)
