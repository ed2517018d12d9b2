"""After an update a project's own tests pass, the person's among them; tests/update/test_make_update.py has the small one."""

from __future__ import annotations

import pytest

from forge_template import run
from tests.generated.life import INSTALL_LIMIT, TEST_LIMIT, find_python
from tests.update.world import ARCHIVES, World

TASK = '''"""Mine."""

from app.core.celery import celery_app


@celery_app.task(name="mine.double", soft_time_limit=5, time_limit=10)
def double(number: int) -> int:
    """Return twice the number."""
    return number * 2
'''
TEST = '''"""Mine."""

from app.tasks.mine import double


def test_double() -> None:
    assert double(4) == 8
'''


@pytest.mark.matrix
@pytest.mark.parametrize("tag", ARCHIVES)
@pytest.mark.parametrize("profile", ["standard", "production"])
def test_own_tests_pass(world: World, tag: str, profile: str) -> None:
    person = world.project(tag, {"profile": profile})
    person.write("app/tasks/mine.py", TASK)
    person.write("tests/test_mine.py", TEST)
    person.replace("README.md", "## Start\n", "## Mine\n\nText.\n\n## Start\n")
    person.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    person.commit("Update")
    environment = {"UV_PYTHON": find_python("3.11") or "3.11"}
    run(["uv", "sync"], person.folder, environment, timeout=INSTALL_LIMIT)
    output = run(["uv", "run", "--no-sync", "pytest"], person.folder, environment, timeout=TEST_LIMIT)
    assert " passed" in output
    assert " failed" not in output
