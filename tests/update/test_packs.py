"""Task packs in projects that are older than they: offered, and switched on and off one by one."""

from __future__ import annotations

import pytest
import yaml

from forge_template import ROOT
from tests.update.world import ARCHIVES, Updated, World, next_tag, tree_of

CONFIG = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
PACKS = sorted(CONFIG["task_examples"]["choices"].values())
OFFERS = "New, and switched off here:"
OLD = [tag for tag in ARCHIVES if tag in {"v0.1.0", "v0.2.0"}]


def _offers(updated: Updated) -> str:
    return updated.report.partition(OFFERS)[2].partition("Look at it with")[0]


@pytest.mark.matrix
@pytest.mark.parametrize("tag", OLD)
def test_an_older_project_keeps_what_it_has_and_is_told_of_the_rest(world: World, tag: str) -> None:
    person = world.project(tag)
    person.replace("README.md", "## Start", "## Mine\n\nText.\n\n## Start")
    person.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    assert person.answers()["task_examples"] == ["email"]
    told = _offers(updated)
    assert all(pack in told for pack in PACKS)
    assert "auth=complete" in told
    assert person.exists("app/tasks/send_email_task.py")
    assert "## Mine" in person.read("README.md")


@pytest.mark.matrix
def test_a_project_is_told_only_what_concerns_it(world: World) -> None:
    person = world.project(OLD[-1], {"auth": "none"})
    updated = person.update("--data", "task_examples=[email, backup]")
    assert "users and sessions" not in updated.report
    told = _offers(updated)
    assert "reports" in told
    assert "'task_examples=[email, backup, data_processing]'" in told
    assert not any(what in told for what in ("cleanup", "auth=complete"))
    without_celery = world.project(OLD[-1], {"use_celery": False}).update()
    assert without_celery.code == 0, without_celery.report
    assert "CELERY_" not in without_celery.report
    assert "users and sessions" in without_celery.report
    assert "task_examples" not in _offers(without_celery)
    assert "auth=complete" not in _offers(without_celery)


@pytest.mark.matrix
@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_is_switched_on_and_off(world: World, pack: str) -> None:
    person = world.project(OLD[-1])
    for packs in ([pack], []):
        updated = person.update("--data", f"task_examples={packs}")
        assert updated.code == 0, updated.report
        assert person.stages() == {}
        person.commit()
        assert person.answers()["task_examples"] == packs
        assert tree_of(person.folder) == tree_of(world.copied(next_tag(), person.answers()))


@pytest.mark.matrix
def test_packs_with_routes_leave_the_persons_routes_alone(world: World) -> None:
    person = world.project(OLD[-1])
    person.write("app/api/mine.py", "from fastapi import APIRouter\n\nrouter = APIRouter()\n")
    person.replace("app/main.py", "health, tasks\n", "health, mine, tasks\n")
    person.replace(
        "app/main.py",
        "app.include_router(tasks.router)",
        "app.include_router(tasks.router)\n    app.include_router(mine.router)",
    )
    person.commit()
    updated = person.update("--data", "task_examples=[email, data_processing, images, reports]")
    assert updated.code == 0, updated.report
    assert "app/main.py" in updated.report
    # 0.5.0 lets features bring their routes: the person's line and the template's loop are both there, in a conflict.
    yours, _, template = person.read("app/main.py").rpartition("<<<<<<< ")[2].partition("=======")
    assert "include_router(mine.router)" in yours
    assert "for feature in features:" in template
