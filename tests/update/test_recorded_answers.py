"""An update keeps each recorded answer, although Copier no longer asks its question."""

from __future__ import annotations

import copier
import pytest

from tests.conftest import Keyboard
from tests.update.world import Person, World

# 0.4.2 asked these questions. None of the answers is a default, neither the profile's nor the template's.
ANSWERS = {
    "profile": "minimal",
    "description": "Sells flowers",
    "author_name": "Ada Example",
    "author_email": "ada@example.org",
    "license": "mit",
    "python_version": "3.12",
    "copyright_year": "2019",
    "scheduler": "redbeat",
    "timezone": "Europe/Berlin",
    "use_flower": True,
    "use_docker": True,
    "use_kubernetes": True,
    "database": "mysql",
    "use_cors": True,
    "ci": "github",
}
WITHOUT_CELERY = {"profile": "production", "use_celery": False, "use_redis": False, "auth": "none", "ci": "none"}


@pytest.fixture(params=[ANSWERS, WITHOUT_CELERY], ids=["celery", "without celery"])
def old_project(world: World, request: pytest.FixtureRequest) -> Person:
    """A project of 0.4.2 that differs from its profile."""
    return world.project("v0.4.2", request.param)


def test_an_update_with_defaults_keeps_every_answer(old_project: Person) -> None:
    before = old_project.answers()
    updated = old_project.update()
    assert updated.code == 0, updated.report
    assert own(old_project.answers()) == own(before) | later_answers(before)


def test_an_update_that_asks_keeps_every_answer_at_enter(old_project: Person, keyboard: Keyboard) -> None:
    before = old_project.answers()
    copier.run_update(old_project.folder, unsafe=True, overwrite=True, quiet=True)
    assert own(old_project.answers()) == own(before) | later_answers(before)
    assert "database" in keyboard.shown
    assert "timezone" not in keyboard.shown
    # An update shows what it wrote in its report; stopping it half-way would leave the project between two releases.
    assert "write_project" not in keyboard.shown


def test_another_profile_at_an_update_keeps_the_answers_that_differ(old_project: Person) -> None:
    before = old_project.answers()
    updated = old_project.update("--data", "profile=standard")
    assert updated.code == 0, updated.report
    chosen = {**own(before), "profile": "standard"}
    assert own(old_project.answers()) == chosen | later_answers(chosen)


def own(answers: dict[str, object]) -> dict[str, object]:
    """Return a project's answers without what Copier records about the template."""
    return {name: value for name, value in answers.items() if not name.startswith("_")}


def later_answers(answers: dict[str, object]) -> dict[str, object]:
    """Return what the questions since 0.4.2 answer in a project with these answers."""
    return {"task_platform": answers["profile"] != "minimal"}
