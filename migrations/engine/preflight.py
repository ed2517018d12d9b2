"""Check what Copier does not check, before anything is touched."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from . import git, snapshot, trees
from .files import SECRETS, parse_yaml
from .problem import Problem
from .project import Project
from .rendering import Rendering, render

NEEDED_GIT = (2, 38)
_IN_PROGRESS = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}
# Longer where both sides have renamed a file.
_MARKERS = r"^(<{7,9}|>{7,9})( |$)"


def check(project: Project, source: Path, version: str, given: Mapping[str, str]) -> None:
    """Return if the update can start.

    `version` is the one that the project was rendered with, `given` are the questions that the user answers again.

    Raises:
        Problem: it cannot, and why.
    """
    found = re.search(r"(\d+)\.(\d+)", git.text(project.top, "--version"))
    of_git = tuple(map(int, found.groups())) if found else (0, 0)
    if of_git < NEEDED_GIT:
        raise Problem(
            f"the update merges with git 2.38 or later; this is git {'.'.join(map(str, of_git))}. Install a newer git. "
            "Nothing was changed."
        )
    if project.object_format != "sha1":
        raise Problem("Copier cannot update a repository with SHA-256 objects. Nothing was changed.")
    for name, what in _IN_PROGRESS.items():
        if (project.git_folder / name).exists():
            raise Problem(f"{what} is in progress: finish or abort it, then update. Nothing was changed.")
    locks = _locks(project)
    if locks:
        listed = "".join(f"\n  {path}" for path in locks)
        raise Problem(
            f"git has locked what an update writes:{listed}\nIf no other update runs here, a killed one left it: delete it, then "
            "update. Nothing was changed."
        )
    dirty = _dirty(project)
    if dirty:
        listed = "".join(f"\n  {line}" for line in dirty[:20])
        raise Problem(f"not committed:{listed}\nCommit or stash it, then update. Nothing was changed.")
    hidden = _hidden(project)
    if hidden:
        listed = "".join(f"\n  {path}" for path in hidden[:20])
        raise Problem(
            f"git is told not to look at:{listed}\nThe update would overwrite what you have there. Switch that off (`git "
            "update-index --no-skip-worktree --no-assume-unchanged`, `git sparse-checkout disable`), commit or stash what "
            "shows, then update. Nothing was changed."
        )
    in_the_way = _in_the_way(project, source)
    if in_the_way:
        listed = "".join(f"\n  {line}" for line in in_the_way[:20])
        raise Problem(
            f"in the way of files that the template may write:{listed}\nMove it elsewhere, then update. Nothing was changed."
        )
    unfinished = _unfinished(project)
    if unfinished:
        listed = "".join(f"\n  {path}" for path in unfinished[:20])
        raise Problem(
            f"an earlier conflict is not resolved in:{listed}\nResolve it, delete `.rej` files that you have worked in, "
            "commit, then update. Nothing was changed."
        )
    questions = _questions(source)
    unknown = [_suggest(name, questions) for name in given if name not in questions]
    if unknown:
        raise Problem(f"--data names no question of the template: {'; '.join(unknown)}. Nothing was changed.")
    unclear = [f"{name}={value}" for name, value in given.items() if _is_unclear(value, questions[name])]
    if unclear:
        raise Problem(f"--data {', '.join(unclear)}: answer true or false. Nothing was changed.")
    edited = _edited_answers(project, source, version)
    if edited:
        options = " ".join(f"--data {shlex.quote(f'{name}={_as_option(value)}')}" for name, value in edited.items())
        raise Problem(
            f"{project.answers_file} was edited by hand: {', '.join(edited)}. An update brings what an answer changes only "
            f"when it is given the answer itself. Take the edit back (`git revert` of its commit), then update with\n"
            f"  {options}\nNothing was changed."
        )


def _locks(project: Project) -> list[Path]:
    """Return the locks of the update's own refs; of the others, git itself says so when the user undoes an update."""
    refs, packed = git.text(
        project.top, "rev-parse", "--git-path", "refs/forge", "--git-path", "packed-refs.lock"
    ).splitlines()
    locks = [*sorted((project.top / refs).rglob("*.lock")), project.top / packed]
    return [lock for lock in locks if lock.exists()]


def _dirty(project: Project) -> list[str]:
    # Copier looks at the project's folder alone, as git is configured; writing the result and undoing it reach further.
    listed = git.text(project.top, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal")
    # This stage may run twice, and has changed the answers then.
    return [line for line in listed.split("\0") if line and line[3:] != f"{project.prefix}{project.answers_file}"]


def _hidden(project: Project) -> list[str]:
    """Return the files that `git status` is silent about: assumed unchanged, or left out of the project's checkout."""
    listed = git.run(project.top, "ls-files", "-z", "-v").decode("utf-8", "surrogateescape").split("\0")
    return [
        path
        for tag, _, path in (line.partition(" ") for line in listed)
        if tag.islower() or (tag == "S" and path.startswith(project.prefix))
    ]


def _in_the_way(project: Project, source: Path) -> list[str]:
    """Return what Copier would overwrite though git does not have it, and what would make Copier fail half-way."""
    known = set(git.names(project.folder, "ls-files", "-z"))
    written = {path: list(map(str, PurePath(path).parents))[:-1] for path in _written(source / "template")}
    folders = {parent: project.folder / parent for parents in written.values() for parent in parents}
    files = {name for name, folder in folders.items() if os.path.lexists(folder) and not folder.is_dir()}
    links = {name for name, folder in folders.items() if folder.is_symlink()}
    found = {f"{name} (a file, where the template has a folder)" for name in files}
    for path, parents in written.items():
        own = project.folder / path
        if files.intersection(parents) or not os.path.lexists(own):
            continue
        if own.is_dir():
            found.add(f"{path} (a folder, where the template has a file)")
        elif path not in known and not PurePath(path).match(SECRETS) and not links.intersection(parents):
            found.add(f"{path} (git ignores it)")
    return sorted(found)


def _written(folder: Path) -> set[str]:
    """Return the paths that a release writes with every feature on; one whose name is an answer is the answers file."""
    files = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    paths = (re.sub(r"{%.*?%}", "", Path(file).relative_to(folder).as_posix()).removesuffix(".jinja") for file in files)
    return {path for path in paths if "{{" not in path}


def _unfinished(project: Project) -> list[str]:
    marked = git.run(project.folder, "grep", "-zlIE", "--no-color", "--no-recurse-submodules", _MARKERS, accept=(0, 1))
    paths = [Path(name) for name in marked.decode("utf-8", "surrogateescape").split("\0") if name]
    both = [path for path in paths if _has_both(project.folder / path)]
    return sorted({*map(str, both), *{*project.rejected()} - {*snapshot.undone(project)}})


def _has_both(path: Path) -> bool:
    content = path.read_bytes()
    return all(re.search(rb"^%b{7,9} " % sign, content, re.MULTILINE) for sign in (b"<", b">"))


def _questions(source: Path) -> dict[str, dict[str, Any]]:
    """Return the questions of the new release. Those of other releases are no less unknown: Copier drops their answers."""
    loaded = parse_yaml((source / "copier.yml").read_bytes())
    return {name: question for name, question in loaded.items() if not name.startswith("_")}


def _is_unclear(value: str, question: Mapping[str, Any]) -> bool:
    """Return whether Copier would take this for true, as it takes every word that it does not know."""
    words = {"y", "yes", "t", "true", "on", "1", "n", "no", "f", "false", "off", "0"}
    return question["type"] == "bool" and value.strip().lower() not in words


def _as_option(value: object) -> str:
    """Return what `--data` reads as this value: YAML."""
    return value if isinstance(value, str) and parse_yaml(value) == value else json.dumps(value)


def _suggest(name: str, questions: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, questions, 1)
    return f"{name} (did you mean {near[0]}?)" if near else name


def _edited_answers(project: Project, source: Path, version: str) -> dict[str, Any]:
    """Return the answers that a commit changed in the answers file alone since the last update, where they write other files."""
    path = f"{project.prefix}{project.answers_file}"
    last = _last_change(project, path, "_commit")
    if not last:
        return {}
    before, after = (project.answers_of(commit) for commit in (last, "HEAD"))
    changed = [name for name in after if not name.startswith("_") and after[name] != before.get(name)]
    alone = {name: after[name] for name in changed if _alone(project, path, _last_change(project, path, name))}
    renderings = [Rendering(source, version, answers) for answers in (after, {**after, **before})]
    return alone if alone and _differ(project, renderings) else {}


def _differ(project: Project, renderings: Iterable[Rendering]) -> bool:
    with tempfile.TemporaryDirectory(prefix="forge-") as scratch:
        found = []
        for number, rendering in enumerate(renderings):
            folder = Path(scratch) / str(number)
            render(rendering, project.answers_file, folder)
            files = trees.from_folder(project.git_folder, folder)
            found.append(
                {
                    name: files[name]
                    for name in files
                    if name != project.answers_file and not PurePath(name).match(SECRETS)
                }
            )
    return found[0] != found[1]


def _last_change(project: Project, path: str, name: str) -> str:
    return git.text(project.top, "log", "-1", "--format=%H", "-G", f"^{re.escape(name)}:", "--", path)


def _alone(project: Project, path: str, commit: str) -> bool:
    changed = git.text(project.top, "diff-tree", "--root", "--no-commit-id", "--name-only", "-r", "-z", commit)
    return set(filter(None, changed.split("\0"))) == {path}
