"""Every release has an archive, its checksum is recorded, nothing of it was ever changed, and it can be copied from."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import copier
import pytest

from forge_template import ROOT, commit_tree, git, released_versions, unpack
from tests.copy.sound import problems

RELEASES = ROOT / "tests" / "releases"
ARCHIVES = sorted(RELEASES.glob("*.tar.gz"))


def sums() -> dict[str, str]:
    """Return the recorded checksums by the archive's name."""
    recorded = RELEASES / "SHA256SUMS"
    lines = recorded.read_text(encoding="utf-8").splitlines() if recorded.exists() else []
    parsed = [re.fullmatch(r"([0-9a-f]{64})  (v\d+\.\d+\.\d+\.tar\.gz)", line) for line in lines]
    assert all(parsed), lines
    listed = {match[2]: match[1] for match in parsed if match}
    assert len(listed) == len(lines), "an archive is listed twice"
    return listed


def test_every_release_has_its_archive() -> None:
    """All but the newest, whose archive is made after its commit."""
    versions = released_versions((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert versions
    present = {archive.name for archive in ARCHIVES}
    older = {f"v{version}.tar.gz" for version in versions[1:]}
    assert older <= present <= older | {f"v{versions[0]}.tar.gz"}


def test_versions_fall() -> None:
    versions = released_versions((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(set(numbers), reverse=True)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{versions[0]}"\n' in project


def test_checksums() -> None:
    assert sums() == {archive.name: hashlib.sha256(archive.read_bytes()).hexdigest() for archive in ARCHIVES}


def test_no_release_was_ever_changed() -> None:
    assert git(ROOT, "log", "--diff-filter=MDR", "--format=%h", "--", "tests/releases/*.tar.gz") == ""
    removed = [
        line
        for line in git(ROOT, "log", "--format=", "--patch", "--", "tests/releases/SHA256SUMS").splitlines()
        if line.startswith("-") and not line.startswith("---")
    ]
    assert removed == []


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
def test_copy_from_archive(archive: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "forge"
    assert not [name for name in unpack(archive, unpacked) if name.split("/")[0] in ("tests", "benchmarks")]
    project = tmp_path / "project"
    copier.run_copy(str(unpacked), project, defaults=True, unsafe=True, quiet=True)
    assert problems(project) == []
    # As a person does with a tag on a git host.
    commit_tree(unpacked, "release", archive.name.removesuffix(".tar.gz"))
    tagged = tmp_path / "tagged"
    copier.run_copy(str(unpacked), tagged, defaults=True, unsafe=True, quiet=True)
    answers = (tagged / ".copier-answers.yml").read_text(encoding="utf-8")
    assert f"_commit: {archive.name.removesuffix('.tar.gz')}" in answers


def test_release_refuses_a_dirty_tree(tmp_path: Path) -> None:
    """The script, run in a repository of its own."""
    copy = tmp_path / "repository"
    (copy / "scripts").mkdir(parents=True)
    for name in ("scripts/release.py", "scripts/forge_template.py", "CHANGELOG.md"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "tests").mkdir()
    (copy / "tests" / "some.py").write_text("x = 1\n", encoding="utf-8")
    (copy / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    commit_tree(copy, "release")
    version = released_versions((copy / "CHANGELOG.md").read_text(encoding="utf-8"))[0]

    def release() -> subprocess.CompletedProcess[str]:
        script = [sys.executable, "-B", "scripts/release.py"]
        return subprocess.run(script, cwd=copy, capture_output=True, text=True, check=False)

    (copy / "dirty").touch()
    refused = release()
    assert refused.returncode == 1
    assert "working tree has changes" in refused.stderr
    (copy / "dirty").unlink()

    made = release()
    assert made.returncode == 0, made.stderr
    archive = copy / "tests" / "releases" / f"v{version}.tar.gz"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (archive.parent / "SHA256SUMS").read_text(encoding="utf-8") == f"{digest}  {archive.name}\n"
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    assert "CHANGELOG.md" in names
    assert not [name for name in names if name.startswith("tests")]

    commit_tree(copy, "archive")
    again = release()
    assert again.returncode == 1
    assert "never changed" in again.stderr
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest
