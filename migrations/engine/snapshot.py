"""What the stage before saves for the stage after, and for an update that was interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .files import HALF_WRITTEN, SECRETS, copy_private, write_whole
from .problem import UNDO, Problem
from .project import Project


@dataclass(frozen=True)
class Snapshot:
    """The commit that the update started from, and the version that Copier recorded for it."""

    head: str
    version_from: str


@dataclass(frozen=True)
class Rejected:
    """The `.rej` files that an update wrote, with a digest of each, and the commit that it started from."""

    head: str
    files: Mapping[str, str]


def save(project: Project, version_from: str) -> None:
    """Save the commit, the version and the files that git ignores. First restore a file that a killed update lost."""
    saved = project.state / "saved"
    # A killed update leaves half-written files, and undoing keeps them because git ignores them.
    for folder in (project.folder, saved):
        for half in folder.glob(f"{SECRETS}{HALF_WRITTEN}*"):
            half.unlink()
    for lost in saved.glob(SECRETS):
        target = project.folder / lost.relative_to(saved)
        if not target.exists():
            copy_private(lost, target)
    for name in undone(project):
        (project.folder / name).unlink()
    for path in project.secrets():
        copy_private(path, saved / path.relative_to(project.folder))
    write_whole(_state_file(project), json.dumps(asdict(Snapshot(project.head, version_from))).encode())


def load(project: Project) -> Snapshot:
    """Return the snapshot of this HEAD.

    Raises:
        Problem: there is none, or it is of another commit.
    """
    path = _state_file(project)
    snapshot = Snapshot(**json.loads(path.read_bytes())) if path.exists() else None
    if snapshot is None or snapshot.head != project.head:
        raise Problem(
            f"the stage before the update did not run on this commit. Undo with `{UNDO}`, then run the update again."
        )
    return snapshot


def restore_secrets(project: Project) -> None:
    """Restore the settings files. One that Copier added is removed: its passwords are not those of the others."""
    saved = project.state / "saved"
    for path in project.secrets():
        if not (saved / path.relative_to(project.folder)).exists():
            path.unlink()
    for path in saved.glob(SECRETS):
        copy_private(path, project.folder / path.relative_to(saved))


def conclude(project: Project, report: str, rejected: Mapping[str, bytes]) -> None:
    """Remove the snapshot, and keep the report for `make update` and the weekly workflow."""
    shutil.rmtree(project.state, ignore_errors=True)
    write_whole(project.state / "report.txt", report.encode("utf-8", "surrogateescape"))
    files = {f"{name}.rej": _digest(content) for name, content in rejected.items()}
    write_whole(_rejected_file(project), json.dumps(asdict(Rejected(project.head, files))).encode())


def undone(project: Project) -> list[str]:
    """Return the unchanged `.rej` files of an update that was undone: undoing keeps them where git ignores them."""
    path = _rejected_file(project)
    known = Rejected(**json.loads(path.read_bytes())) if path.exists() else None
    if known is None or known.head != project.head:
        return []
    found = {name: project.folder / name for name in known.files}
    return [name for name, file in found.items() if file.is_file() and known.files[name] == _digest(file.read_bytes())]


def _state_file(project: Project) -> Path:
    return project.state / "state.json"


def _rejected_file(project: Project) -> Path:
    return project.state / "rejected.json"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
