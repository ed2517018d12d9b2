"""The stage after: Copier has asked its questions and patched the project; its patching is replaced by a merge."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gitcmd
import merge
import report
import settings_files
import trees
from owners import Owners
from packaging.version import Version
from project import Project
from releases import Release
from render import render
from trees import Entry, Merged, Tree


def run(
    project: Project, source: Path, conflict: str, releases: Sequence[Release], versions: tuple[Version, Version]
) -> None:
    """Merge the release into the project and print what became of it; `versions` are those before and after."""
    known = project.recall()
    version = os.environ["VERSION_TO"]
    answers, recorded = project.answers(), project.recorded_answers()
    top = project.top
    with tempfile.TemporaryDirectory(prefix="forge-") as scratch:
        fresh = Path(scratch) / "new"
        render(source, version, answers, project.answers_file, fresh)
        owners = Owners(source)
        theirs = _without_secrets(trees.from_folder(top, fresh), owners)
        base = _base(project, source, known["version_from"], recorded, owners, Path(scratch) / "old")
        ours = trees.read(top, f"{known['head']}:{project.prefix}")
        written = (project.folder / project.answers_file).read_bytes()
        entry = Entry("100644", trees.store(top, written))
        outcome = merge.merge(top, base, ours, theirs, owners, (project.answers_file, entry))
        rejected = _reject(top, outcome.merged, base, ours, theirs) if conflict == "rej" else {}
        _write(project, known["head"], outcome.merged, rejected, {*theirs, *base})
        project.restore_secrets()
        changes = settings_files.update(project.folder, fresh, _settings(top, base), str(versions[1]))
        _keep(project, theirs, _key(source, version, answers))
    old, new = map(str, versions)
    if old == new:
        # Two commits that state one release.
        old, new = known["version_from"], version
    words = report.text(project, old, new, outcome, sorted(rejected), changes, releases, (recorded, answers))
    project.conclude(words, rejected)
    print(words, flush=True)


def _without_secrets(tree: Tree, owners: Owners) -> Tree:
    return {path: entry for path, entry in tree.items() if not owners.is_users(path)}


def _key(source: Path, version: str, answers: Mapping[str, Any]) -> str:
    """Return what a render depends on: the release's files and the answers."""
    tree = gitcmd.text(source, "rev-parse", f"{version}^{{tree}}")
    given = {name: value for name, value in answers.items() if not name.startswith("_")}
    digest = hashlib.sha256(json.dumps([tree, given], sort_keys=True, default=str).encode()).hexdigest()
    return f"rendered by Forge: {digest}"


def _ref(project: Project) -> str:
    place = hashlib.sha256(project.prefix.encode()).hexdigest()[:12] if project.prefix else "root"
    return f"refs/forge/base/{place}"


def _base(
    project: Project, source: Path, version: str, recorded: Mapping[str, Any], owners: Owners, scratch: Path
) -> Tree:
    """Return what the old release wrote: as the last update kept it, or rendered again."""
    ref, key = _ref(project), _key(source, version, recorded)
    if gitcmd.git(project.top, "log", "-1", "--format=%s", ref, "--", accept=(0, 128)).decode().strip() == key:
        return trees.read(project.top, ref)
    render(source, version, recorded, project.answers_file, scratch)
    return _without_secrets(trees.from_folder(project.top, scratch), owners)


def _keep(project: Project, tree: Tree, key: str) -> None:
    commit = trees.commit(project.top, trees.write(project.top, tree), key)
    gitcmd.git(project.top, "update-ref", _ref(project), commit)


def _reject(top: Path, merged: Merged, base: Tree, ours: Tree, theirs: Tree) -> dict[str, bytes]:
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
        rejected[path] = gitcmd.git(top, "diff", "--no-color", "--no-ext-diff", *sides)
        if 2 in stages:
            merged.tree[path] = stages[2]
        else:
            merged.tree.pop(path, None)
    merged.stages.clear()
    return rejected


def _write(project: Project, head: str, merged: Merged, rejected: Mapping[str, bytes], rendered: set[str]) -> None:
    """Put the result into the work tree and the index, conflicts as unmerged paths."""
    top, prefix = project.top, project.prefix
    gitcmd.git(top, "read-tree", "--reset", "-u", trees.write(top, merged.tree, prefix, beside=head))
    # What Copier's own patching has left; nothing was untracked when the update began.
    others = gitcmd.git(project.folder, "ls-files", "-z", "--others", "--exclude-standard")
    names = others.decode("utf-8", "surrogateescape").split("\0")
    # Older projects ignore `.rej` files, and the stage before has refused those of its owner.
    for name in filter(None, [*names, *project.rejected()]):
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
    gitcmd.git(top, "update-index", "-z", "--index-info", data=info)


def _prune(folder: Path, stop: Path) -> None:
    while folder != stop and folder.is_dir() and not any(folder.iterdir()):
        shutil.rmtree(folder)
        folder = folder.parent


def _settings(top: Path, base: Tree) -> dict[str, set[str]]:
    """Return the settings that the old release's examples name, by the settings file that they are for."""
    return {
        f".{Path(path).stem}": set(settings_files.names(trees.blob(top, entry.oid).decode("utf-8", "replace")))
        for path, entry in base.items()
        if path.startswith("secret/env.") and path.endswith(".example")
    }
