"""The operators' page of a generated project in Chromium: axe, keyboard, phone, without scripts, no error in the console.

FORGE_PICTURES names a folder for the screenshots of the documentation: `make pictures`.
"""

from __future__ import annotations

import os
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest

from forge_template import run
from tests.conftest import Renderer
from tests.generated.life import find_python, install

pytestmark = pytest.mark.matrix

FOLDER = Path(__file__).parent
# The project itself depends on neither.
PACKAGES = ("playwright", "axe-playwright-python")
MAX_PICTURE = 150_000


def test_the_page_works_in_a_browser(render: Renderer, scratch: Path) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        problem = "no Chromium; on Debian: apt-get install chromium"
        warnings.warn(f"NOT TESTED in a browser: {problem}", stacklevel=1)
        pytest.skip(problem)
    python = find_python("3.11")
    assert python, "no Python 3.11 on this machine"
    folder = render.fresh({"profile": "standard", "auth": "none", "database": "sqlite"}, scratch / "project")
    install(folder, python)
    shutil.copy(FOLDER / "page_tasks.py", folder / "app/tasks/page_tasks.py")
    shutil.copy(FOLDER / "task_page.py", folder / "tests/e2e/platform/test_task_page.py")
    pictures = scratch / "pictures"
    pictures.mkdir()
    environment = {"CHROMIUM": chromium, "TASK_PAGE_PICTURES": str(pictures)}
    packages = [option for package in PACKAGES for option in ("--with", f"{package}=={version(package)}")]
    command = ["uv", "run", "--no-sync", *packages, "python", "-m", "pytest", "-q", "--timeout=300"]
    output = run([*command, "tests/e2e/platform/test_task_page.py"], folder, environment, timeout=1200)
    assert "7 passed" in output, output
    made = sorted(pictures.iterdir())
    assert made
    assert [picture.name for picture in made if picture.stat().st_size > MAX_PICTURE] == []
    if target := os.environ.get("FORGE_PICTURES"):
        for picture in made:
            shutil.copy(picture, target)
