"""Manifests for Kubernetes in a project that is older than they: offered, switched on and off, and the owner's secrets kept."""

from __future__ import annotations

import pytest

from forge_template import git
from tests.update.world import World, next_tag, tree_of

SECRETS = "kubernetes/overlays/production/app.env"


@pytest.mark.matrix
def test_an_older_project_is_offered_kubernetes_and_its_secrets_stay_out_of_git(world: World) -> None:
    person = world.project("v0.2.0")
    updated = person.update("--data", "use_docker=true")
    assert updated.code == 0, updated.report
    assert person.answers()["use_kubernetes"] is False
    assert "use_kubernetes=true" in updated.report.partition("New, and switched off here:")[2]
    person.commit()

    updated = person.update("--data", "use_kubernetes=true")
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    assert tree_of(person.folder) == tree_of(world.copied(next_tag(), person.answers()))
    (person.folder / SECRETS).write_text("JWT_SECRET_KEY=mine\n", encoding="utf-8")
    person.replace("kubernetes/overlays/production/kustomization.yaml", "newTag: 0.1.0", "newTag: 1.2.3")
    person.commit()

    updated = person.update("--data", "use_kubernetes=false")
    assert updated.code == 0, updated.report
    assert not person.exists("kubernetes/base/api.yaml")
    assert (person.folder / SECRETS).read_text(encoding="utf-8") == "JWT_SECRET_KEY=mine\n"
    git(person.folder, "add", "--all")
    assert SECRETS not in git(person.folder, "ls-files")


@pytest.mark.matrix
def test_sqlite_is_offered_no_kubernetes(world: World) -> None:
    person = world.project("v0.2.0", {"profile": "minimal"})
    updated = person.update()
    assert updated.code == 0, updated.report
    told = updated.report.partition("New, and switched off here:")[2]
    assert "use_docker=true" in told
    assert "use_kubernetes" not in told
