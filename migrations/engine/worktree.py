"""Write the result of a merge to the work tree and the index."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from . import git, trees
from .merging import Outcome
from .project import Project
from .trees import Commit

_RESULT = "refs/forge/result"


def reject(top: Path, outcome: Outcome) -> dict[str, bytes]:
    """Settle each conflict on the owner's file, and return what the release wanted to change in it."""
    rejected = {}
    empty = trees.store(top, b"") if outcome.conflicts else ""
    for conflict in outcome.conflicts:
        sides = [conflict.versions[number].oid if number in conflict.versions else empty for number in (1, 3)]
        rejected[conflict.path] = git.run(top, "diff", "--no-color", "--no-ext-diff", *sides)
        for path in (conflict.path, *conflict.copies):
            outcome.files.pop(path, None)
        if 2 in conflict.versions:
            outcome.files[conflict.path] = conflict.versions[2]
    outcome.conflicts.clear()
    return rejected


def write(
    project: Project, head: str, outcome: Outcome, rejected: Mapping[str, bytes], rendered: Collection[str]
) -> None:
    """Put the result into the work tree and the index, conflicts as unmerged paths.

    `rendered` are the files that Copier may have written.
    """
    top, prefix = project.top, project.prefix
    trees.commit(top, [Commit(_RESULT, outcome.files, parent=head, prefix=prefix)])
    git.run(top, "read-tree", "--reset", "-u", _RESULT)
    # What Copier's own patching left; nothing was untracked when the update began.
    others = git.names(project.folder, "ls-files", "-z", "--others", "--exclude-standard")
    # Older projects ignore `.rej` files, and the stage before refuses the owner's.
    for name in [*others, *project.rejected()]:
        if name in rendered or name.endswith(".rej"):
            path = project.folder / name
            path.unlink(missing_ok=True)
            _prune(path.parent, project.folder)
    for name, content in rejected.items():
        target = project.folder / f"{name}.rej"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    unmerged = [item for conflict in outcome.conflicts for item in conflict.stages.items()]
    if unmerged:
        lines = [f"0 {'0' * 40}\t{prefix}{name}\0" for name, _ in unmerged]
        lines += [
            f"{entry.mode} {entry.oid} {number}\t{prefix}{name}\0"
            for name, stages in unmerged
            for number, entry in sorted(stages.items())
        ]
        info = "".join(lines).encode("utf-8", "surrogateescape")
        git.run(top, "update-index", "-z", "--index-info", data=info)


def _prune(folder: Path, stop: Path) -> None:
    while folder != stop and folder.is_dir() and not any(folder.iterdir()):
        shutil.rmtree(folder)
        folder = folder.parent
