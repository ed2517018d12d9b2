"""A template without tags, as a clone or a fork may be: its releases are those that its commits state."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_template import ROOT, git, released_versions
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
    assert "A worker told to stop gives back what it has not finished" in updated.report
    assert project_repo.answers()["use_docker"] is False


def test_two_commits_of_one_release_are_told_apart(project_repo: Person) -> None:
    assert project_repo.update().code == 0
    project_repo.commit("Update")
    again = project_repo.update()
    assert again.code == 0, again.report
    assert f"Forge: up to date with {project_repo.answers()['_commit']}" in again.report
