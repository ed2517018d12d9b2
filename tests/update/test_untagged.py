"""A template without tags, as a clone or a fork may be: its releases are those that its commits state."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import versions
from forge_template import ROOT, commit_tree, git, released_versions
from tests.update.world import Person, World

OLD = "0.3.0"


@pytest.fixture
def project_repo(world: World, tmp_path: Path) -> Person:
    """A project of an older commit of a template that has no tags."""
    template = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", "--no-tags", str(world.template), str(template))
    assert git(template, "tag") == ""
    commit = git(world.template, "rev-parse", f"v{OLD}^{{commit}}").strip()
    return world.of(template).project(commit, {"profile": "minimal"})


def test_an_untagged_template_migrates_by_the_versions_that_its_commits_state(project_repo: Person) -> None:
    assert not project_repo.answers()["_commit"].startswith("v")
    assert "use_kubernetes" not in project_repo.answers()
    updated = project_repo.update()
    assert updated.code == 0, updated.report
    newest = released_versions((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[0]
    assert f"Forge: updated from {OLD} to {newest}" in updated.report
    # What 0.4.0 asks of older projects: the sentence in the report, and the answer that keeps a new feature switched off.
    assert "On SIGTERM a worker requeues what it has not finished" in updated.report
    assert project_repo.answers()["use_docker"] is False


@pytest.mark.parametrize(
    ("commit", "version"),
    [
        ("v0.3.0", "0.3.0"),
        ("v0.4.0.post1", "0.4.0.post1"),
        ("v0.3.0-2-gabcdef0", "9.0.0"),
        ("1234567", "9.0.0"),
        ("HEAD", "9.0.0"),
    ],
)
def test_a_tag_counts_and_a_hash_of_digits_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, commit: str, version: str
) -> None:
    (tmp_path / "CHANGELOG.md").write_text("## [9.0.0] - 2030-01-01\n", encoding="utf-8")
    commit_tree(tmp_path, "release")
    # What stands for any commit: the one that is there.
    monkeypatch.setattr("engine.git.text", lambda _, *arguments: git(tmp_path, "show", "HEAD:CHANGELOG.md"))
    assert str(versions.release_of(tmp_path, commit, "0.0.0.post1")) == version


@pytest.mark.matrix
def test_two_commits_of_one_release_are_told_apart(project_repo: Person) -> None:
    assert project_repo.update().code == 0
    project_repo.commit("Update")
    again = project_repo.update()
    assert again.code == 0, again.report
    assert f"Forge: up to date with {project_repo.answers()['_commit']}" in again.report
