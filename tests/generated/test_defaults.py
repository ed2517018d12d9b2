"""docs/defaults.md says what Celery's defaults and a generated project's are, and which test proves each difference."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from forge_template import ROOT, run
from tests.conftest import Renderer
from tests.generated.life import find_python, install
from tests.generated.test_life import VARIANTS
from tests.proofs import Proof, problem

PAGE = ROOT / "docs" / "defaults.md"
# Prints for each setting what Celery and kombu have, what the application has, and what its workers have.
READ = """
import json, sys
from datetime import timedelta
from importlib.metadata import version

from celery import Celery
from kombu.transport.redis import Channel

from app.core.celery import _configure_worker, celery_app


def shown(conf, name, missing=None):
    setting, _, key = name.partition(".")
    value = conf[setting]
    if key:
        value = value.get(key, missing)
    return repr(int(value.total_seconds()) if isinstance(value, timedelta) else value)


def all_of(conf, of_channel=False):
    names = sys.argv[1:]
    return {name: shown(conf, name, getattr(Channel, name.partition(".")[2], None) if of_channel else None) for name in names}


found = {"celery": all_of(Celery("plain", set_as_current=False).conf, True), "application": all_of(celery_app.conf)}
_configure_worker(celery_app.conf)
found["worker"] = all_of(celery_app.conf)
found["versions"] = {name: version(name) for name in ("celery", "kombu")}
print(json.dumps(found))
"""


class Row(NamedTuple):
    """A row of the page's table."""

    what: str
    celery: str
    forge: str
    why: str
    test: str


def rows(text: str) -> list[Row]:
    found = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return [Row(*one) for one in found]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def lies(settings: list[Row], found: dict[str, dict[str, str]]) -> list[str]:
    """Return the rows whose values are not those that were read."""
    wrong = []
    for row in settings:
        (name,) = code(row.what)
        wanted = [found["celery"][name], *dict.fromkeys([found["application"][name], found["worker"][name]])]
        if code(row.celery) + code(row.forge) != wanted:
            wrong.append(f"{name}: Celery has {wanted[0]}, Forge {', '.join(wanted[1:])}")
    return wrong


@pytest.fixture(scope="module")
def page() -> list[Row]:
    found = rows(PAGE.read_text(encoding="utf-8"))
    assert len(found) >= 17
    return found


def test_each_setting_has_the_values_of_the_page(page: list[Row], render: Renderer, scratch: Path) -> None:
    settings = [row for row in page if re.fullmatch(r"`[^`]+`", row.what)]
    assert len(settings) >= 17
    project = render.fresh({"profile": "minimal"}, scratch / "project")
    install(project, find_python("3.11") or sys.executable)
    names = [code(row.what)[0] for row in settings]
    found = json.loads(run(["uv", "run", "--no-sync", "python", "-c", READ, *names], project, timeout=60))
    assert lies(settings, found) == []
    text = PAGE.read_text(encoding="utf-8")
    assert f"Celery {found['versions']['celery']} with kombu {found['versions']['kombu']}" in text
    changed = [name for name in names if found["celery"][name] == found["application"][name] == found["worker"][name]]
    assert changed == []


@pytest.mark.parametrize(
    ("celery", "forge"), [("`False`", "`True`"), ("`3`", "`1`"), ("`3`", "`1`, `9`"), ("none", "`1`, `10`")]
)
def test_a_row_with_another_value_is_found(celery: str, forge: str) -> None:
    found = {"celery": {"a.b": "3"}, "application": {"a.b": "1"}, "worker": {"a.b": "10"}}
    assert lies([Row("`a.b`", "`3`", "`1`, `10`", "", "")], found) == []
    assert lies([Row("`a.b`", celery, forge, "", "")], found) == ["a.b: Celery has 3, Forge 1, 10"]


def test_each_row_links_a_test_that_runs_in_ci(page: list[Row], render: Renderer) -> None:
    project = render(VARIANTS["production-postgresql"][2])
    problems: list[str | None] = []
    for row in page:
        linked = re.fullmatch(r"\[`(test_\w+)`\]\(\.\./template/(\S+)\)", row.test)
        assert linked, f"{row.what}: {row.test} is not a link of a test in the template"
        file = re.sub(r"\{% if [^%]* %\}|\{% endif %\}", "", unquote(linked[2])).removesuffix(".jinja")
        if not (ROOT / "template" / unquote(linked[2])).is_file():
            problems.append(f"{row.what}: {unquote(linked[2])} does not exist")
        problems.append(problem(Proof("project", file, linked[1]), project))
    assert [one for one in problems if one] == []


def test_the_readme_shows_rows_of_the_page(page: list[Row]) -> None:
    links = {row[:3]: row.test.partition("](../")[2] for row in page}
    shown = [row for row in rows((ROOT / "README.md").read_text(encoding="utf-8")) if "](template/tests/" in row.test]
    assert len(shown) >= 17
    for row in shown:
        assert links.get(row[:3]) == row.test.partition("](")[2], f"docs/defaults.md has no row {row.what}"
