"""A generated project's task records, played against two models on a real Redis or Valkey: what scripts write, and what people do.

FORGE_MODEL_EXAMPLES is the number of runs (100, about a minute), TEST_REDIS_URL another server, whose data is deleted.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from forge_template import run
from tests.conftest import Renderer
from tests.generated.life import find_python, install

pytestmark = pytest.mark.matrix

MODELS = Path(__file__).parent


@pytest.mark.parametrize("model", ["records_model", "actions_model"])
def test_a_final_state_never_changes_and_each_record_is_found_once(render: Renderer, scratch: Path, model: str) -> None:
    python = find_python("3.11")
    assert python, "no Python 3.11 on this machine"
    folder = render.fresh({"profile": "standard", "database": "sqlite"}, scratch / "project")
    install(folder, python)
    shutil.copy(MODELS / f"{model}.py", folder / f"tests/worker/test_{model}.py")
    # The project itself does not depend on hypothesis.
    hypothesis = f"hypothesis=={version('hypothesis')}"
    command = ["uv", "run", "--no-sync", "--with", hypothesis, "python", "-m", "pytest", "-q", "--timeout=0"]
    assert "1 passed" in run([*command, f"tests/worker/test_{model}.py"], folder, timeout=3600)
