"""docs/security.md names a test for each defence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import docs
from forge_template import ROOT
from tests.conftest import Renderer
from tests.proofs import problem, proofs

PAGE = ROOT / "docs" / "security.md"


def unproven(page: str, project: Path) -> list[str]:
    """Return what is wrong with the tests that a page names: of this repository, or else of the project."""
    placed = [proof._replace(where="" if (ROOT / proof.file).is_file() else "project") for proof in proofs(page)]
    return [found for proof in placed if (found := problem(proof, project))]


def test_each_named_test_runs(render: Renderer) -> None:
    assert unproven(PAGE.read_text(encoding="utf-8"), render(docs.everything_on())) == []


def test_each_threat_has_a_test() -> None:
    rows = re.findall(r"^\| .* \| .* \| .* \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    cells = [cell for cell in rows if cell != "test" and not cell.startswith("---")]
    assert len(cells) > 30
    assert [cell for cell in cells if not proofs(cell)] == ["the browser's rule"]


@pytest.mark.parametrize("page", ["`tests/core/test_api.py::test_gone`", "`tests/core/test_gone.py::test_health`"])
def test_a_wrong_name_is_seen(render: Renderer, page: str) -> None:
    assert len(unproven(page, render(docs.everything_on()))) == 1
