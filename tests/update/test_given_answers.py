"""Answers that cannot be meant as they are given: misspelt ones, and an answers file that was edited by hand."""

from __future__ import annotations

import pytest

from tests.update.world import Person, World, next_tag


@pytest.fixture
def project_repo(world: World) -> Person:
    """A small project of the newest release."""
    return world.project(next_tag(), {"profile": "minimal"})


def test_a_misspelt_question_is_refused_with_the_one_that_is_meant(project_repo: Person) -> None:
    updated = project_repo.update("--data", "use_flowers=true")
    assert updated.code, updated.report
    assert "--data names no question of the template: use_flowers (did you mean use_flower?)" in updated.report
    assert "Nothing was changed" in updated.report
    assert project_repo.status() == ""


def test_an_answer_edited_by_hand_is_named_with_the_option_that_brings_it(project_repo: Person) -> None:
    project_repo.replace(".copier-answers.yml", "use_flower: false", "use_flower: true")
    project_repo.commit()
    updated = project_repo.update()
    assert updated.code, updated.report
    assert ".copier-answers.yml was edited by hand: use_flower" in updated.report
    assert "  --data use_flower=true" in updated.report
    assert project_repo.status() == ""
    project_repo.git("revert", "--no-edit", "HEAD")
    given = project_repo.update("--data", "use_flower=true")
    assert given.code == 0, given.report
    assert "flower:" in project_repo.read("Procfile")
    # What an update recorded is not an edit, although the release stays the same.
    project_repo.commit()
    assert project_repo.update().code == 0


def test_an_answer_that_writes_nothing_may_be_edited(project_repo: Person) -> None:
    project_repo.replace(".copier-answers.yml", "use_redis: true", "use_redis: false")
    project_repo.commit()
    updated = project_repo.update()
    assert updated.code == 0, updated.report
