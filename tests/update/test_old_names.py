"""The report names each line of the owner's code that uses what a release removed."""

from __future__ import annotations

import re

import pytest
from packaging.version import Version

from engine.stale_imports import module
from forge_template import ROOT, working_files
from releases import all_releases
from tests.update.world import World, next_tag

MINE = """from app.core.config import settings
from app.features.accounts.deps import CurrentUser
from app.models import Base, User
from app.services.accounts import find_user
from app.utils.email import email_service
from app.worker.records import TaskStatus

LIMIT = settings.celery.task_time_limit


@celery_app.task(name="mine", hides_arguments=True)
def mine() -> None: ...
"""
OWN_SERVICE = "import httpx\n\nfrom app.services import images\n\nhttpx.Client()\n"


@pytest.mark.parametrize("tag", [pytest.param("v0.4.2", marks=pytest.mark.matrix), "v0.5.0"])
def test_the_report_lists_names_from_before_0_5_0(world: World, tag: str) -> None:
    person = world.project(tag)
    person.write("app/mine.py", MINE)
    person.write("app/services/images.py", "")
    person.write("app/services/own.py", OWN_SERVICE)
    person.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    assert "Your files that use an old name:\n" in updated.report
    lines = re.findall(r"^.* uses .*$", updated.report, re.MULTILINE)
    assert lines == [
        f"  app/mine.py:{line} uses {old}, which is now {new}"
        for line, old, new in (
            (
                1,
                "app.core.config.settings",
                "an instance for each group, such as app.core.config.application.app_settings",
            ),
            (3, "app.models.User", "app.features.accounts.models.User"),
            (4, "app.services.accounts", "app.features.accounts.service"),
            (6, "app.worker.records.TaskStatus", "app.worker.status.TaskStatus"),
            (8, "app.core.config.settings.celery", "app.core.config.celery.celery_settings"),
            (11, "hides_arguments", "redact_arguments"),
        )
    ] + ["  app/services/own.py:1 uses httpx, which is now httpx2: import httpx2 as httpx"]
    assert '"httpx>=' in person.read("pyproject.toml"), "the old name works until 0.9.0"


def test_the_new_names_of_this_release_exist() -> None:
    """A later change must not move what this release sends its users to."""
    version = Version(next_tag()[1:])
    paths = {
        re.sub(r"\{%.*?%\}", "", path.removeprefix("template/")).removesuffix(".jinja"): path
        for path in working_files("template")
    }
    modules = {module(final): path for final, path in paths.items() if final.endswith(".py")}
    answers = {"auth": "complete", "use_celery": True, "scheduler": "redbeat"}
    releases = [release for release in all_releases() if release.version == version.base_version]
    names = {new for release in releases for new in release.removed_names(answers).values()}
    missing = []
    for name in sorted(name for name in names if "." in name and " " not in name and name not in modules):
        parent, _, attribute = name.rpartition(".")
        text = (ROOT / modules[parent]).read_text(encoding="utf-8") if parent in modules else ""
        if not re.search(rf"^(class |(async )?def )?{attribute}\b", text, re.MULTILINE):
            missing.append(name)
    assert missing == []
