"""docs/security.md names a test for each defence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forge_template import ROOT
from tests.conftest import Renderer

PAGE = ROOT / "docs" / "security.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
EVERYTHING = {"profile": "production", "use_kubernetes": True, "ci": "github"}


def missing(page: str, *folders: Path) -> list[str]:
    """Return the tests that the page names and that are in none of the folders."""
    found = []
    for path, name in TEST.findall(page):
        files = [folder / path for folder in folders if (folder / path).is_file()]
        if not any(re.search(rf"^(async )?def {name}\(", file.read_text(encoding="utf-8"), re.M) for file in files):
            found.append(f"{path}::{name}")
    return found


def test_each_named_test_exists(render: Renderer) -> None:
    gone = missing(PAGE.read_text(encoding="utf-8"), render(EVERYTHING), ROOT)
    assert not gone


def test_each_threat_has_a_test() -> None:
    rows = re.findall(r"^\| .* \| .* \| .* \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    proofs = [proof for proof in rows if proof != "test" and not proof.startswith("---")]
    assert len(proofs) > 30
    assert [proof for proof in proofs if not TEST.search(proof)] == ["the browser's rule"]


@pytest.mark.parametrize("page", ["`tests/core/test_api.py::test_gone`", "`tests/core/test_gone.py::test_health`"])
def test_a_wrong_name_is_seen(render: Renderer, page: str) -> None:
    assert len(missing(page, render(EVERYTHING), ROOT)) == 1
