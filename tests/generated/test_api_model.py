"""The API of generated projects, with requests that schemathesis makes of its OpenAPI schema.

FORGE_MODEL_EXAMPLES is the number of requests of each route, besides those at the bounds of its parameters.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from forge_template import run
from tests.conftest import Renderer
from tests.generated.life import find_python, install

pytestmark = pytest.mark.matrix

MODEL = Path(__file__).parent / "api_model.py"
# The project itself does not depend on it.
SCHEMATHESIS = "schemathesis==4.32.5"


@pytest.mark.parametrize(
    "answers",
    [
        {"profile": "production", "auth": "complete"},
        {"profile": "standard", "database": "sqlite"},
        {"profile": "standard", "database": "sqlite", "auth": "none"},
    ],
    ids=["production", "standard", "no accounts"],
)
def test_each_answer_of_the_api_is_as_documented(render: Renderer, scratch: Path, answers: dict[str, Any]) -> None:
    python = find_python("3.11")
    assert python, "no Python 3.11 on this machine"
    folder = render.fresh(answers, scratch / "project")
    install(folder, python)
    shutil.copy(MODEL, folder / "tests/test_api_model.py")
    command = ["uv", "run", "--no-sync", "--with", SCHEMATHESIS, "python", "-m", "pytest", "-q", "--timeout=0"]
    output = run([*command, "tests/test_api_model.py"], folder, timeout=3600)
    assert re.search(r"^\d+ passed in", output, re.MULTILINE), output
