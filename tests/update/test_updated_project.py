"""After an update a project's own tests pass, the person's among them."""

from __future__ import annotations

import pytest

from forge_template import run
from tests.generated.life import INSTALL_LIMIT, TEST_LIMIT, find_python
from tests.update.world import ARCHIVES, FIRST, LAST, World

TASK = '''"""Mine."""

from app.core.celery import celery_app


@celery_app.task(name="mine.double", soft_time_limit=5, time_limit=10)
def double(number: int) -> int:
    """Return twice the number."""
    return number * 2
'''
ROUTE = '''"""Mine."""

from fastapi import APIRouter

router = APIRouter()


@router.get("/mine")
async def read_mine() -> dict[str, int]:
    """Answer."""
    return {"mine": 4}
'''
FEATURE = '''"""Mine."""

from app.api import mine
from app.core.features import Feature

feature = Feature(routes=[mine.router])
'''
TEST = '''"""Mine."""

import httpx

from app.tasks.mine import double


def test_double() -> None:
    assert double(4) == 8


async def test_route(client: httpx.AsyncClient) -> None:
    assert (await client.get("/mine")).json() == {"mine": 4}
'''


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("tag", "profile"),
    [
        # The longest way with everything on, the last release before features had folders, and the way that most people go.
        (FIRST, "production"),
        ("v0.4.2", "standard"),
        (LAST, "standard"),
    ],
)
def test_own_tests_pass(world: World, tag: str, profile: str) -> None:
    person = world.project(tag, {"profile": profile})
    person.write("app/tasks/mine.py", TASK)
    person.write("tests/test_mine.py", TEST)
    person.write("app/api/mine.py", ROUTE)
    line = "    app.include_router(health.router)\n"
    person.replace("app/main.py", line, f"{line}    app.include_router(mine.router)\n")
    # Away from the template's own imports: an edit of the same lines is a conflict, as it should be.
    line = "\n\ndef create_app("
    person.replace("app/main.py", line, f"\nfrom app.api import mine  # noqa: E402\n{line}")
    person.replace("pyproject.toml", 'description = "A FastAPI application', 'description = "My FastAPI application')
    person.replace("README.md", "## Start\n", "## Mine\n\nText.\n\n## Start\n")
    person.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    # 0.5.0 rewrote what stands around these lines; its report says that they belong into a feature now.
    tags = list(ARCHIVES)
    is_rewritten = tags.index(tag) < tags.index("v0.5.0")
    assert set(person.stages()) == ({"app/main.py"} if is_rewritten else set())
    if is_rewritten:
        assert "docs/features.md" in updated.report
        person.git("checkout", "--theirs", "app/main.py")
        person.write("app/features/mine/__init__.py", '"""Mine."""\n')
        person.write("app/features/mine/feature.py", FEATURE)
    assert 'description = "My FastAPI' in person.read("pyproject.toml")
    person.commit("Update")
    environment = {"UV_PYTHON": find_python("3.11") or "3.11"}
    run(["uv", "sync"], person.folder, environment, timeout=INSTALL_LIMIT)
    output = run(["make", "test"], person.folder, environment, timeout=TEST_LIMIT)
    assert " passed" in output
    assert " failed" not in output
