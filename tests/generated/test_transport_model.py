"""A generated project's transport and its flow control, each played against a model on a real Redis or Valkey.

FORGE_MODEL_EXAMPLES is the number of runs of each (about a minute without it), TEST_REDIS_URL another server, whose data is deleted.
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

MODELS = ("transport_model.py", "waiting_model.py")


def test_every_message_is_in_one_place_until_it_is_acknowledged(render: Renderer, scratch: Path) -> None:
    python = find_python("3.11")
    assert python, "no Python 3.11 on this machine"
    folder = render.fresh({"profile": "standard", "database": "sqlite"}, scratch / "project")
    install(folder, python)
    for model in MODELS:
        shutil.copy(Path(__file__).parent / model, folder / f"tests/worker/test_{model}")
    # The project itself does not depend on hypothesis.
    hypothesis = f"hypothesis=={version('hypothesis')}"
    command = ["uv", "run", "--no-sync", "--with", hypothesis, "python", "-m", "pytest", "-q", "--timeout=0"]
    assert "2 passed" in run([*command, *(f"tests/worker/test_{model}" for model in MODELS)], folder, timeout=3600)
