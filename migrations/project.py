"""The project that is updated, and what is kept of it from one stage to the other."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gitcmd
import yaml
from owners import SECRETS
from problem import UNDO, Problem
from releases import Release

_HALF = ".forge-"
_INSTALLED = {".venv", "venv", "node_modules", ".tox", "site-packages"}


@dataclass(frozen=True)
class Project:
    """Where things are. `prefix` is the project's folder in its repository, with a slash at its end, or nothing."""

    folder: Path
    top: Path
    prefix: str
    state: Path
    answers_file: str

    @classmethod
    def at(cls, folder: Path, answers_file: str) -> Project:
        """Look at the project in `folder`."""
        top = Path(gitcmd.text(folder, "rev-parse", "--show-toplevel"))
        prefix = gitcmd.text(folder, "rev-parse", "--show-prefix")
        # Of this worktree alone, and never in a commit.
        state = Path(gitcmd.text(folder, "rev-parse", "--git-path", f"forge-update/{prefix or '.'}"))
        return cls(folder, top, prefix, (folder / state).resolve(), answers_file)

    def answers(self) -> dict[str, Any]:
        """Return the answers in the work tree."""
        return _mapping((self.folder / self.answers_file).read_bytes(), self.answers_file)

    def recorded_answers(self) -> dict[str, Any]:
        """Return the answers in HEAD: those that the project was rendered with."""
        return self.answers_of("HEAD")

    def answers_of(self, commit: str) -> dict[str, Any]:
        """Return the answers in a commit."""
        return _mapping(gitcmd.git(self.top, "show", f"{commit}:{self.prefix}{self.answers_file}"), self.answers_file)

    def remember(self, version_from: str) -> None:
        """Save HEAD, the version and what git does not keep. A file that an update killed before lost is put back first."""
        saved = self.state / "saved"
        # Half written when an update was killed; git ignores them, so that undoing has left them.
        for folder in (self.folder, saved):
            for half in folder.glob(f"{SECRETS}{_HALF}*"):
                half.unlink()
        for lost in saved.glob(SECRETS):
            target = self.folder / lost.relative_to(saved)
            if not target.exists():
                _copy(lost, target)
        for name in self.undone():
            (self.folder / name).unlink()
        for path in self.secrets():
            _copy(path, saved / path.relative_to(self.folder))
        known = {
            "head": gitcmd.text(self.top, "rev-parse", "HEAD"),
            "version_from": version_from,
        }
        write_whole(self.state / "state.json", json.dumps(known).encode())

    def recall(self) -> dict[str, Any]:
        """Return what `remember` saved of this HEAD.

        Raises:
            Problem: there is nothing, or it is of another commit.
        """
        path = self.state / "state.json"
        known: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        if known.get("head") != gitcmd.text(self.top, "rev-parse", "HEAD"):
            raise Problem(
                f"the stage before the update did not run on this commit. Undo with `{UNDO}`, then run the update again."
            )
        return known

    def rejected(self) -> list[str]:
        """Return the `.rej` files, ignored ones too: Copier stumbles over those when the release stops ignoring them."""
        listed = gitcmd.git(
            self.folder, "ls-files", "-z", "--cached", "--others", "--", "*.rej", extra={"GIT_LITERAL_PATHSPECS": "0"}
        )
        names = listed.decode("utf-8", "surrogateescape").split("\0")
        # What a tool installed is not this project's.
        return [name for name in names if name and not _INSTALLED.intersection(Path(name).parts)]

    def undone(self) -> list[str]:
        """Return the `.rej` files of an update that was undone: git ignored them, so that undoing has left them."""
        path = self.state / "rejected.json"
        known: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        if known.get("head") != gitcmd.text(self.top, "rev-parse", "HEAD"):
            return []
        found = {name: self.folder / name for name in known["files"]}
        return [
            name
            for name, file in found.items()
            if file.is_file() and known["files"][name] == _digest(file.read_bytes())
        ]

    def secrets(self) -> Iterable[Path]:
        """Return the settings files that git ignores."""
        return sorted(self.folder.glob(SECRETS))

    def restore_secrets(self) -> None:
        """Put the settings files back as they were; a new one goes, as it has not the passwords of those that exist."""
        saved = self.state / "saved"
        for path in self.secrets():
            if not (saved / path.relative_to(self.folder)).exists():
                path.unlink()
        for path in saved.glob(SECRETS):
            _copy(path, self.folder / path.relative_to(saved))

    def rewrite_answers(self, releases: Iterable[Release]) -> None:
        """Bring the answers to what the new release asks, in the work tree; Copier reads them from there."""
        before = self.answers()
        after = dict(before)
        for release in releases:
            after = release.answers(after)
        if after != before:
            lines = ["# Changes here will be overwritten by Copier; NEVER EDIT MANUALLY\n"]
            lines.append(yaml.safe_dump(after, allow_unicode=True, sort_keys=True))
            write_whole(self.folder / self.answers_file, "".join(lines).encode())

    def conclude(self, report: str, rejected: Mapping[str, bytes]) -> None:
        """Drop what was kept, and leave the report for who asks for it later: `make update` and the weekly workflow."""
        head = gitcmd.text(self.top, "rev-parse", "HEAD")
        shutil.rmtree(self.state, ignore_errors=True)
        write_whole(self.state / "report.txt", report.encode("utf-8", "surrogateescape"))
        files = {f"{name}.rej": _digest(content) for name, content in rejected.items()}
        write_whole(self.state / "rejected.json", json.dumps({"head": head, "files": files}).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _mapping(content: bytes, name: str) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise Problem(
            f"{name} is no YAML ({str(error).splitlines()[0]}): put back the version of your last commit."
        ) from error
    if not isinstance(loaded, dict):
        raise Problem(f"{name} holds no answers: put back the version of your last commit.")
    return loaded


def _copy(source: Path, target: Path) -> None:
    write_whole(target, source.read_bytes(), mode=0o600)


def write_whole(target: Path, content: bytes, mode: int | None = None) -> None:
    """Write a file that is there whole or not at all. A symbolic link stays one."""
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}{_HALF}{os.getpid()}")
    if mode is None:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
