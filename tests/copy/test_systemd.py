"""The units for systemd in docs/deployment.md: valid, whatever the answers, and with the times that the processes need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Renderer

ANSWERS: dict[str, dict[str, Any]] = {
    "everything": {"profile": "production"},
    "standard": {},
    "redbeat": {"scheduler": "redbeat"},
    "no Celery": {"profile": "minimal", "use_celery": False, "use_redis": False},
}
Units = dict[str, str]


@pytest.fixture(params=list(ANSWERS.values()), ids=list(ANSWERS))
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Give the answers of a variant."""
    given: dict[str, Any] = request.param
    return given


@pytest.fixture
def units(render: Renderer, answers: dict[str, Any]) -> Units:
    """Give the text of each unit, by its path below /etc/systemd/system."""
    page = (render(answers) / "docs" / "deployment.md").read_text(encoding="utf-8")
    found = re.findall(r"^`/etc/systemd/system/([^`]+)`[^\n]*\n\n```ini\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(found) == page.count("```ini\n[Unit]")
    return dict(found)


def test_systemd_accepts_every_unit(units: Units, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    for name, text in units.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        # It looks for the command, which exists only on the host.
        path.write_text(re.sub(r"/srv/\S+/\.venv/bin/\w+", "/bin/true", text), encoding="utf-8")
    names = [name.replace("@.", "@high.") for name in units if name.endswith(".service")]
    verified = subprocess.run(
        ["systemd-analyze", "verify", *names],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_a_worker_has_the_time_to_requeue_its_tasks(units: Units, answers: dict[str, Any]) -> None:
    workers = [text for name, text in units.items() if name.endswith("-worker@.service")]
    assert bool(workers) == answers.get("use_celery", True)
    for text in workers:
        assert "KillMode=mixed\n" in text
        assert "OOMPolicy=continue\n" in text
        # CELERY_SOFT_SHUTDOWN_TIMEOUT, and the 10 s that docs/worker-failures.md names.
        assert int(re.findall(r"TimeoutStopSec=(\d+)", text)[0]) >= 20 + 10
