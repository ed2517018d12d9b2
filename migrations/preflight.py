"""What Copier does not check itself, said before anything is touched."""

from __future__ import annotations

import re
from pathlib import Path

import gitcmd
from problem import Problem
from project import Project

NEEDED_GIT = (2, 38)
_IN_PROGRESS = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}
_MARKERS = r"^(<{7}|>{7})( |$)"


def check(project: Project) -> None:
    """Return if the update can start.

    Raises:
        Problem: it cannot, and why.
    """
    found = re.search(r"(\d+)\.(\d+)", gitcmd.text(project.top, "--version"))
    version = tuple(map(int, found.groups())) if found else (0, 0)
    if version < NEEDED_GIT:
        raise Problem(
            f"the update merges with git 2.38 or later; this is git {'.'.join(map(str, version))}. Install a newer git. "
            "Nothing was changed."
        )
    if gitcmd.text(project.top, "rev-parse", "--show-object-format") != "sha1":
        raise Problem("Copier cannot update a repository with SHA-256 objects. Nothing was changed.")
    for name, what in _IN_PROGRESS.items():
        if (project.folder / gitcmd.text(project.folder, "rev-parse", "--git-path", name)).exists():
            raise Problem(f"{what} is in progress: finish or abort it, then update. Nothing was changed.")
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
    unfinished = _unfinished(project)
    if unfinished:
        listed = "".join(f"\n  {path}" for path in unfinished[:20])
        raise Problem(
            f"an earlier conflict is not resolved in:{listed}\nResolve it, delete `.rej` files that you have worked in, "
            "commit, then update. Nothing was changed."
        )


def _dirty(project: Project) -> list[str]:
    # Copier looks at the project's folder alone, as git is configured; writing the result and undoing it reach further.
    listed = gitcmd.text(project.top, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal")
    # This stage may run twice, and has changed the answers then.
    return [line for line in listed.split("\0") if line and line[3:] != f"{project.prefix}{project.answers_file}"]


def _hidden(project: Project) -> list[str]:
    """Return the files that `git status` is silent about: assumed unchanged, or left out of the project's checkout."""
    listed = gitcmd.git(project.top, "ls-files", "-z", "-v").decode("utf-8", "surrogateescape").split("\0")
    return [
        path
        for tag, _, path in (line.partition(" ") for line in listed)
        if tag.islower() or (tag == "S" and path.startswith(project.prefix))
    ]


def _unfinished(project: Project) -> list[str]:
    marked = gitcmd.git(
        project.folder, "grep", "-zlIE", "--no-color", "--no-recurse-submodules", _MARKERS, accept=(0, 1)
    )
    paths = [Path(name) for name in marked.decode("utf-8", "surrogateescape").split("\0") if name]
    both = [path for path in paths if _has_both(project.folder / path)]
    # What a tool installed is not this project's.
    rejected = {path for path in project.rejected() if not _is_installed(Path(path))}
    return sorted({*map(str, both), *rejected - {*project.undone()}})


def _has_both(path: Path) -> bool:
    lines = path.read_bytes().splitlines()
    return any(line.startswith(b"<<<<<<< ") for line in lines) and any(line.startswith(b">>>>>>> ") for line in lines)


def _is_installed(path: Path) -> bool:
    return any(part in {".venv", "venv", "node_modules", ".tox", "site-packages"} for part in path.parts)
