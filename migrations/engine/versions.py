"""Find the release that a commit of the template is, also in a clone without tags."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

from packaging.version import InvalidVersion, Version

from . import git

_RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\]", re.MULTILINE)


def release_of(source: Path, commit: str, described: str) -> Version:
    """Return the release that a commit of the template states.

    Args:
        source: the template's clone.
        commit: as Copier records it: a tag, `git describe` or an abbreviated hash.
        described: the version that Copier derives from the tags, `0.0.0.post…` where there are none.

    A tag of the commit itself counts. Any other commit is the release on top of its CHANGELOG.md.
    """
    # An abbreviated hash may be digits alone, which is a version too.
    if "." in commit:
        with contextlib.suppress(InvalidVersion):
            return Version(commit)
    try:
        stated = _RELEASE.search(git.text(source, "show", f"{commit}:CHANGELOG.md"))
    except subprocess.CalledProcessError:
        # A template of the user's own, which keeps no such file.
        stated = None
    return Version(stated[1] if stated else described)
