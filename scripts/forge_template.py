"""What the demo, the release script and the tests share: a clean clone of this working tree, and clean environments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A release archive holds everything but these, which neither a copy nor an update reads; the clone matches it.
NOT_RELEASED = ("tests", "benchmarks", "docs", "examples")

_RELEASE = re.compile(r"^## \[(?P<version>\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", re.MULTILINE)
# Each of these would bind a generated project to what runs Forge itself: its environment, uv, git hook or make.
_LEAKS = (
    "PYTHONHOME",
    "PYTHONPATH",
    "UV",
    "UV_FROZEN",
    "UV_LOCKED",
    "UV_NO_DEV",
    "UV_NO_SYNC",
    "UV_PROJECT",
    "UV_PROJECT_ENVIRONMENT",
    "UV_PYTHON",
    "UV_RUN_RECURSION_DEPTH",
    "VIRTUAL_ENV",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
    "ARGS",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
)
# A commit by nobody at a fixed time: the same tree gives the same commit, whoever runs it.
_NOBODY = {
    "GIT_AUTHOR_NAME": "Forge",
    "GIT_AUTHOR_EMAIL": "forge@example.com",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "Forge",
    "GIT_COMMITTER_EMAIL": "forge@example.com",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def released_versions(changelog: str) -> list[str]:
    """Return the versions that `changelog` dates, newest first."""
    return _RELEASE.findall(changelog)


def project_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what would leak into a generated project, with its uv found first."""
    environment = {
        name: value for name, value in os.environ.items() if name not in _LEAKS and not name.startswith("PYTEST_")
    }
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment.update(extra or {})
    return environment


def git(folder: Path, *arguments: str, extra: Mapping[str, str] | None = None) -> str:
    """Run git in `folder` and return what it prints."""
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=project_environment(extra),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ).stdout


def commit_tree(folder: Path, message: str, tag: str | None = None) -> None:
    """Make `folder` a git repository of one commit that holds every file in it, ignored or not."""
    git(folder, "init", "--quiet", "--initial-branch=main", extra=_NOBODY)
    git(folder, "add", "--all", "--force", extra=_NOBODY)
    # A release may equal the one before it: right after it was made, the working tree does.
    git(folder, "commit", "--quiet", "--no-verify", "--allow-empty", "--message", message, extra=_NOBODY)
    if tag:
        git(folder, "tag", tag, extra=_NOBODY)


def unpack(archive: Path, folder: Path) -> list[str]:
    """Write the files of a release's archive into `folder` and return their names."""
    with tarfile.open(archive) as tar:
        # The first releases of Python 3.11 know no filters.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(folder)  # noqa: S202
        return tar.getnames()


def working_files(*folders: str) -> list[str]:
    """Return the files of the working tree below `folders`, committed or not, less what git ignores."""
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *folders)
    # A file deleted but not committed is still listed; a path in a merge conflict is listed once a stage.
    return sorted({name for name in listed.split("\0") if name and os.path.lexists(ROOT / name)})


def copy_working_tree(target: Path) -> Path:
    """Write to `target` what a release holds, as the working tree has it, dirty files too."""
    for name in working_files():
        if name.split("/", 1)[0] not in NOT_RELEASED:
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy, follow_symlinks=False)
    return target


def clone_working_tree(target: Path) -> Path:
    """Write a repository to `target` that holds the working tree as it is, tagged as a release."""
    copy_working_tree(target)
    version = released_versions((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[0]
    commit_tree(target, f"Forge {version} and what is not committed yet", f"v{version}")
    return target


def run(arguments: Sequence[str], folder: Path, extra: Mapping[str, str] | None = None, *, timeout: float) -> str:
    """Run a command in a generated project and return its output; a failure shows the output and the command."""
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=project_environment(extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(arguments)} in {folder} ended with {done.returncode}:\n{done.stdout[-20000:]}")
    return done.stdout
