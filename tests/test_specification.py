"""docs/specification.md has every part of the specification, each with tests that exist and run in CI."""

from __future__ import annotations

import hashlib
import re
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from forge_template import ROOT
from tests.conftest import Renderer
from tests.generated.test_life import VARIANTS
from tests.proofs import problem, proofs

PAGE = ROOT / "docs" / "specification.md"
SNIPPETS = ROOT / "tests" / "generated" / "snippets"
OUTLINE = tomllib.loads((ROOT / "tests" / "specification.toml").read_text(encoding="utf-8"))["section"]
# How much the specification has of each: an outline that loses a part is no outline of it.
COUNTS = {"section": 43, "file": 16, "command": 12, "snippet": 33}
CI = "production-postgresql"


class Row(NamedTuple):
    """A row of the page's tables."""

    kind: str
    item: str
    generated: str
    test: str


class Snippet(NamedTuple):
    """A snippet of the specification, by its digest."""

    language: str
    lines: int
    digest: str


def rows(text: str) -> list[Row]:
    """Return the rows that name a part of the specification."""
    found = re.findall(r"^\| (section|file|command|snippet) \| (.+?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return [Row(*one) for one in found]


def snippets() -> list[Snippet]:
    listed = [one.split() for section in OUTLINE for one in section.get("snippets", [])]
    return [Snippet(language, int(lines), digest) for language, lines, digest in listed]


def parts(kind: str) -> list[str]:
    """Return the parts of a kind, as the page writes them."""
    if kind == "section":
        return [section["title"] for section in OUTLINE]
    if kind == "snippet":
        return [f"{number}, {one.language}" for number, one in enumerate(snippets(), 1)]
    return [f"`{one}`" for section in OUTLINE for one in section.get(f"{kind}s", [])]


@pytest.fixture(scope="module")
def page() -> list[Row]:
    return rows(PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project(render: Renderer) -> Path:
    """The project all of whose tests `make matrix` runs."""
    _, target, answers = VARIANTS[CI]
    assert target == "test-all"
    return render(answers)


@pytest.mark.parametrize("kind", COUNTS)
def test_each_part_of_the_specification_has_a_row(page: list[Row], kind: str) -> None:
    assert len(parts(kind)) == COUNTS[kind]
    assert [row.item for row in page if row.kind == kind] == parts(kind)


def unproven(page: Sequence[Row], project: Path) -> list[str]:
    """Return what keeps rows from being proven."""
    without = [f"{row.kind} {row.item}: names no test" for row in page if not proofs(row.test)]
    named = sorted({proof for row in page for proof in proofs(row.test)})
    return without + [found for proof in named if (found := problem(proof, project))]


def test_each_row_names_tests_that_run_in_ci(page: list[Row], project: Path) -> None:
    assert unproven(page, project) == []
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"make test", "make matrix"} <= set(commands)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("def test_it(): ...", None),
        ("@pytest.mark.matrix\ndef test_it(): ...", None),
        ("def test_other(): ...", "no such test"),
        ("@pytest.mark.skip\ndef test_it(): ...", "skipped"),
        ("@pytest.mark.skipif(True, reason='')\ndef test_it(): ...", "skipped"),
        ("@pytest.mark.xfail\nasync def test_it(): ...", "skipped"),
        ("pytestmark = [pytest.mark.skip]\ndef test_it(): ...", "skipped"),
        ("def test_it():\n    pytest.skip('not here')", "skipped"),
        ("@pytest.mark.by_hand\ndef test_it(): ...", "by_hand"),
    ],
)
def test_a_row_whose_test_does_not_run_is_found(tmp_path: Path, body: str, why: str | None) -> None:
    (tmp_path / "test_file.py").write_text(body, encoding="utf-8")
    found = unproven([Row("section", "One", "", "`project: test_file.py::test_it`")], tmp_path)
    assert bool(found) == bool(why)
    assert (why or "") in "".join(found)


def test_a_row_without_a_test_or_its_file_is_found(tmp_path: Path) -> None:
    page = [Row("section", "One", "", ""), Row("file", "Two", "", "`project: test_gone.py::test_it`")]
    assert unproven(page, tmp_path) == [
        "section One: names no test",
        "project: test_gone.py::test_it: no such file",
    ]


def test_a_row_that_differs_links_the_safe_form(page: list[Row]) -> None:
    assert [row.item for row in page if "**Differs**" in row.generated and "](project/" not in row.generated] == []


def essence(lines: Sequence[str]) -> list[str]:
    """Return lines without empty ones and imports at the top level, which readers put elsewhere."""
    dedented = textwrap.dedent("\n".join(lines)).split("\n")
    return [line.rstrip() for line in dedented if line.strip() and not re.match(r"(from \S+ )?import ", line)]


def test_every_python_snippet_is_pasted_unchanged() -> None:
    wanted = {one for one in snippets() if one.language == "python"}
    pasted = [
        essence(path.read_text(encoding="utf-8").split("\n")) for path in SNIPPETS.rglob("*.py*") if path.is_file()
    ]
    found = {
        Snippet("python", size, hashlib.sha256(block.encode()).hexdigest()[:16])
        for size in {one.lines for one in wanted}
        for lines in pasted
        for start in range(len(lines) - size + 1)
        for block in ["\n".join(essence(lines[start : start + size]))]
    }
    assert wanted - found == set()


def test_every_file_is_generated(project: Path) -> None:
    assert [name for section in OUTLINE for name in section.get("files", []) if not (project / name).exists()] == []


def test_celery_brings_redis(render: Renderer) -> None:
    project = render({"use_celery": True, "use_redis": False})
    assert (project / "app" / "core" / "redis.py").is_file()
    assert "REDIS_CONNECTION_URL=" in (project / "secret" / ".env.development").read_text(encoding="utf-8")


def settings(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize(
    ("environment", "server"),
    [("development", r"redis://localhost:6379"), ("production", r"redis://:[\w-]{40,}@redis:6379")],
)
def test_cache_queues_and_results_have_separate_databases(project: Path, environment: str, server: str) -> None:
    found = settings(project / "secret" / f".env.{environment}")
    for database, name in enumerate(("REDIS_CONNECTION_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")):
        assert re.fullmatch(f"{server}/{database}", found[name]), name
    assert found["CELERY_TIMEZONE"] == "UTC"


def test_flower_is_a_requirement(project: Path) -> None:
    required = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert [one for one in required if re.match(r"flower>=[\d.]+,<\d", one)]


def test_compose_has_the_services(project: Path) -> None:
    text = (project / "docker-compose.yml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    assert "celery_worker" in services
    assert "celery_beat" in services
    assert {"redis", "postgres"} <= set(services)
