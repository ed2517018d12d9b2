"""Write the project that a release gives for some answers, and keep it as the base of the next update."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import git, trees
from .project import Project
from .trees import Commit, Tree

if TYPE_CHECKING:
    from .owners import Owners

Answers = Mapping[str, Any]
# Folders at the top of the template's repository that no render reads.
_NOT_RENDERED = ("benchmarks", "docs", "examples", "findings", "migrations", "scripts", "tests")


@dataclass(frozen=True)
class Rendering:
    """A version of the template in the clone `source`, and the answers to render it with."""

    source: Path
    version: str
    answers: Answers

    @cached_property
    def trees(self) -> tuple[str, str]:
        """Return the ids of the release's files, and of the files that are checked out in the clone."""
        wanted, present = git.text(self.source, "rev-parse", f"{self.version}^{{tree}}", "HEAD^{tree}").split("\n")
        return wanted, present

    @cached_property
    def given(self) -> dict[str, Any]:
        """Return the answers, without what Copier records next to them."""
        return {name: value for name, value in self.answers.items() if not name.startswith("_")}

    @cached_property
    def key(self) -> str:
        """Return a digest of what the result depends on: the release's files and the answers."""
        content = json.dumps([self.trees[0], self.given], sort_keys=True, default=str).encode()
        return f"rendered by Forge: {hashlib.sha256(content).hexdigest()}"


def render(rendering: Rendering, answers_file: str, target: Path) -> None:
    """Write the project to `target`, by Copier's public interface.

    Copier is given a folder, not a repository, and no git: it would clone the template again and call git for every file.
    """
    # Importing Copier takes half a second: an update that is refused does not need it.
    import copier
    from plumbum import local

    with tempfile.TemporaryDirectory(prefix="forge-") as scratch, local.env(PATH=scratch), _compile_once():
        copier.run_copy(
            str(_checked_out(rendering, Path(scratch) / "template")),
            target,
            data=rendering.given,
            answers_file=answers_file,
            defaults=True,
            overwrite=True,
            quiet=True,
            skip_tasks=True,
            # The user has trusted the template: otherwise no migration would run.
            unsafe=True,
        )


@contextmanager
def _compile_once() -> Iterator[None]:
    """Have Jinja compile each text once: Copier passes every part of every path again, some of them 400 times."""
    from jinja2 import Environment

    original = Environment.compile
    known: dict[tuple[object, ...], Any] = {}

    def compile(environment: Environment, source: Any, *rest: Any, **options: Any) -> Any:
        if not isinstance(source, str):
            return original(environment, source, *rest, **options)
        # Extensions see each text every time, as without this.
        environment.preprocess(source)
        key = (environment, source, rest, tuple(options.items()))
        if key not in known:
            known[key] = original(environment, source, *rest, **options)
        return known[key]

    Environment.compile = compile  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Environment.compile = original  # type: ignore[method-assign]


def _checked_out(rendering: Rendering, target: Path) -> Path:
    """Return a folder with the release's files: Copier's clone, or for another version a new one."""
    wanted, present = rendering.trees
    if wanted == present:
        return rendering.source
    target.mkdir()
    place = {"GIT_INDEX_FILE": str(target.with_suffix(".index")), "GIT_LITERAL_PATHSPECS": "0"}
    excluded = [f":(exclude){name}" for name in _NOT_RENDERED]
    git.run(rendering.source, f"--work-tree={target}", "checkout", wanted, "--", ".", *excluded, extra=place)
    return target


def tree(project: Project, rendering: Rendering, owners: Owners, target: Path) -> Tree:
    """Render to `target` and return the files as a tree, without those that belong to the user."""
    render(rendering, project.answers_file, target)
    files = trees.from_folder(project.git_folder, target)
    return {path: entry for path, entry in files.items() if not owners.is_users(path)}


def base(project: Project, rendering: Rendering, owners: Owners, scratch: Path) -> Tree:
    """Return what the old release wrote: as the last update kept it, or rendered again."""
    ref = _base_ref(project)
    kept = git.text(project.top, "log", "-1", "--format=%s", ref, "--", accept=(0, 128))
    if kept == rendering.key:
        return trees.read(project.top, ref)
    return tree(project, rendering, owners, scratch)


def keep(project: Project, rendering: Rendering, files: Tree) -> None:
    """Keep what the new release wrote, as the base of the next update."""
    trees.commit(project.top, [Commit(_base_ref(project), files, rendering.key)])


def _base_ref(project: Project) -> str:
    place = hashlib.sha256(project.prefix.encode()).hexdigest()[:12] if project.prefix else "root"
    return f"refs/forge/base/{place}"
