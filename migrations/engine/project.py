"""The project that is updated: where it is, and its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import git
from .files import SECRETS, parse_yaml, write_whole
from .problem import Problem
from .release import Release

_INSTALLED = {".venv", "venv", "node_modules", ".tox", "site-packages"}


@dataclass(frozen=True)
class Project:
    """Where things are.

    Attributes:
        folder: the project's folder.
        top: the top of its repository.
        prefix: the path from `top` to `folder` with a slash at its end, or "".
        git_folder: the repository's own folder; of this worktree, where there are several.
        head: the commit that is checked out.
        object_format: sha1 or sha256.
        answers_file: the path of the answers file in `folder`.
    """

    folder: Path
    top: Path
    prefix: str
    git_folder: Path
    head: str
    object_format: str
    answers_file: str

    @classmethod
    def at(cls, folder: Path, answers_file: str) -> Project:
        """Return the project in `folder`."""
        asked = ("--show-toplevel", "--show-prefix", "--absolute-git-dir", "--show-object-format", "HEAD")
        top, prefix, git_folder, object_format, head = git.text(folder, "rev-parse", *asked).split("\n")
        return cls(folder, Path(top), prefix, Path(git_folder), head, object_format, answers_file)

    @property
    def state(self) -> Path:
        """Return the folder for what is kept from one stage to the other: never in a commit, and of this worktree alone."""
        return self.git_folder / "forge-update" / (self.prefix or ".")

    def answers(self) -> dict[str, Any]:
        """Return the answers in the work tree."""
        return _mapping((self.folder / self.answers_file).read_bytes(), self.answers_file)

    def recorded_answers(self) -> dict[str, Any]:
        """Return the answers in HEAD: those that the project was rendered with."""
        return self.answers_of("HEAD")

    def answers_of(self, commit: str) -> dict[str, Any]:
        """Return the answers in a commit."""
        return _mapping(git.run(self.top, "show", f"{commit}:{self.prefix}{self.answers_file}"), self.answers_file)

    def rewrite_answers(self, releases: Iterable[Release]) -> None:
        """Change the answers in the work tree to what the new release asks; Copier reads them from there."""
        before = self.answers()
        after: Mapping[str, Any] = before
        for release in releases:
            after = release.answers(after)
        if after != before:
            lines = ["# Changes here will be overwritten by Copier; NEVER EDIT MANUALLY\n"]
            lines.append(yaml.safe_dump(dict(after), allow_unicode=True, sort_keys=True))
            write_whole(self.folder / self.answers_file, "".join(lines).encode())

    def secrets(self) -> list[Path]:
        """Return the settings files that git ignores."""
        return sorted(self.folder.glob(SECRETS))

    def rejected(self) -> list[str]:
        """Return the `.rej` files, ignored ones too: Copier fails on those when the release stops ignoring them."""
        found = git.names(
            self.folder, "ls-files", "-z", "--cached", "--others", "--", "*.rej", extra={"GIT_LITERAL_PATHSPECS": "0"}
        )
        # What a tool installed does not belong to this project.
        return [name for name in found if not _INSTALLED.intersection(Path(name).parts)]


def _mapping(content: bytes, name: str) -> dict[str, Any]:
    try:
        loaded = parse_yaml(content)
    except yaml.YAMLError as error:
        raise Problem(
            f"{name} is not valid YAML ({str(error).splitlines()[0]}): restore the version of your last commit."
        ) from error
    if not isinstance(loaded, dict):
        raise Problem(f"{name} holds no answers: restore the version of your last commit.")
    return loaded
