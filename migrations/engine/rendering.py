"""Write the project that a release gives for some answers, and keep it as the base of the next update."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import git, trees
from .owners import Owners
from .project import Project
from .trees import Tree

Answers = Mapping[str, Any]


@dataclass(frozen=True)
class Rendering:
    """A version of the template in the clone `source`, and the answers to render it with."""

    source: Path
    version: str
    answers: Answers

    def key(self) -> str:
        """Return what the result depends on, hashed: the release's files and the answers."""
        tree = git.text(self.source, "rev-parse", f"{self.version}^{{tree}}")
        digest = hashlib.sha256(json.dumps([tree, self.given()], sort_keys=True, default=str).encode()).hexdigest()
        return f"rendered by Forge: {digest}"

    def given(self) -> dict[str, Any]:
        """Return the answers without what Copier records beside them."""
        return {name: value for name, value in self.answers.items() if not name.startswith("_")}


def render(rendering: Rendering, answers_file: str, target: Path) -> None:
    """Write the project to `target`, by Copier's public interface."""
    # Importing Copier takes half a second: an update that is refused does not need it.
    import copier

    copier.run_copy(
        str(rendering.source),
        target,
        data=rendering.given(),
        answers_file=answers_file,
        vcs_ref=rendering.version,
        defaults=True,
        overwrite=True,
        quiet=True,
        skip_tasks=True,
        # The user has trusted the template: otherwise no migration would run.
        unsafe=True,
    )


def tree(project: Project, rendering: Rendering, owners: Owners, target: Path) -> Tree:
    """Render to `target` and return the files as a tree, without those that belong to the user."""
    render(rendering, project.answers_file, target)
    files = trees.from_folder(project.top, target)
    return {path: entry for path, entry in files.items() if not owners.is_users(path)}


def base(project: Project, rendering: Rendering, owners: Owners, scratch: Path) -> Tree:
    """Return what the old release wrote: as the last update kept it, or rendered again."""
    ref = _base_ref(project)
    kept = git.text(project.top, "log", "-1", "--format=%s", ref, "--", accept=(0, 128))
    if kept == rendering.key():
        return trees.read(project.top, ref)
    return tree(project, rendering, owners, scratch)


def keep(project: Project, rendering: Rendering, files: Tree) -> None:
    """Keep what the new release wrote, as the base of the next update."""
    commit = trees.commit(project.top, trees.write(project.top, files), rendering.key())
    git.run(project.top, "update-ref", _base_ref(project), commit)


def _base_ref(project: Project) -> str:
    place = hashlib.sha256(project.prefix.encode()).hexdigest()[:12] if project.prefix else "root"
    return f"refs/forge/base/{place}"
