"""Write the result of a merge to the work tree and the index."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from . import git, trees
from .project import Project
from .trees import Merged, Tree


def reject(top: Path, merged: Merged, base: Tree, ours: Tree, theirs: Tree) -> dict[str, bytes]:
    """Settle each conflict on the owner's file, and return what the release wanted to change in it."""
    for old, own, new in merged.renamed_by_both:
        # Git puts what both have changed into both files, with markers in them.
        before, after = (trees.renamed(top, base, side).get(old) for side in (ours, theirs))
        if before and after:
            merged.stages[own] = {1: base[old], 2: ours[before], 3: theirs[after]}
            for path in (old, new):
                merged.stages.pop(path, None)
                merged.tree.pop(path, None)
    rejected = {}
    for path, stages in merged.stages.items():
        sides = [stages[number].oid if number in stages else trees.store(top, b"") for number in (1, 3)]
        rejected[path] = git.run(top, "diff", "--no-color", "--no-ext-diff", *sides)
        if 2 in stages:
            merged.tree[path] = stages[2]
        else:
            merged.tree.pop(path, None)
    merged.stages.clear()
    return rejected


def write(project: Project, head: str, merged: Merged, rejected: Mapping[str, bytes], rendered: set[str]) -> None:
    """Put the result into the work tree and the index, conflicts as unmerged paths."""
    top, prefix = project.top, project.prefix
    git.run(top, "read-tree", "--reset", "-u", trees.write(top, merged.tree, prefix, beside=head))
    # What Copier's own patching has left; nothing was untracked when the update began.
    others = git.names(project.folder, "ls-files", "-z", "--others", "--exclude-standard")
    # Older projects ignore `.rej` files, and the stage before has refused those of its owner.
    for name in [*others, *project.rejected()]:
        if name in rendered or name.endswith(".rej"):
            path = project.folder / name
            path.unlink(missing_ok=True)
            _prune(path.parent, project.folder)
    for name, content in rejected.items():
        target = project.folder / f"{name}.rej"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    lines = []
    for name, stages in merged.stages.items():
        lines.append(f"0 {'0' * 40}\t{prefix}{name}\0")
        lines += [f"{entry.mode} {entry.oid} {number}\t{prefix}{name}\0" for number, entry in sorted(stages.items())]
    info = "".join(lines).encode("utf-8", "surrogateescape")
    git.run(top, "update-index", "-z", "--index-info", data=info)


def _prune(folder: Path, stop: Path) -> None:
    while folder != stop and folder.is_dir() and not any(folder.iterdir()):
        shutil.rmtree(folder)
        folder = folder.parent
