"""The repository's own pages lead somewhere, name commands that exist, and are those that `make docs` writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import docs
from forge_template import ROOT, working_files
from listing import listing
from pages import broken_links, for_the_site, links, without_links
from questions_page import PROFILES, questions_page
from tests.conftest import Renderer
from tests.copy.test_render import combinations, name

PAGES = [page for page in working_files("*.md") if not page.startswith(("template/", "tests/"))]
# Those of projects have the commands of a project.
OWN_PAGES = [page for page in PAGES if not page.startswith("docs/project/")]
EXAMPLES = sorted((ROOT / "examples").glob("*.yml"))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert broken_links(ROOT / page) == []


@pytest.mark.parametrize("answers", combinations(2), ids=name)
def test_every_link_in_a_project_leads_somewhere(render: Renderer, answers: dict[str, Any]) -> None:
    project = render(answers)
    pages = [project / "README.md", *sorted((project / "docs").glob("*.md"))]
    assert {page.name: broken for page in pages if (broken := broken_links(page))} == {}


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](other.md) [a](other.md#a-heading--of-code) [a](#here-1) [a](folder/) ![a](a%20b.png)", []),
        ("[a](https://example.com/x.md#y) [a](mailto:me@example.com)", []),
        ("`[a](none.md)`\n\n```text\n[a](none.md)\n```", []),
        ("[a](none.md)", ["none.md"]),
        ("![a](none.png)", ["none.png"]),
        ("[`a`](none.md)", ["none.md"]),
        ("| [a](none.md) |", ["none.md"]),
        ("[a](none/)", ["none/"]),
        ("[a](other.md#none)", ["other.md#none"]),
        ("[a](#none)", ["#none"]),
        ("[a](#here-2)", ["#here-2"]),
        ("```text\n## Shown\n```\n\n[a](#shown)", ["#shown"]),
    ],
)
def test_the_rule_sees_each_kind_of_broken_link(tmp_path: Path, text: str, broken: list[str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a b.png").touch()
    (tmp_path / "other.md").write_text("## A heading — of `code`\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n## Here\n\n{text}\n", encoding="utf-8")
    assert broken_links(page) == broken


def test_every_page_is_in_the_navigation() -> None:
    pages = {page for page in docs.site_files() if page.endswith(".md")}
    assert docs.nav_problems(list(docs.navigation(docs.configuration()["nav"])), pages) == []


def test_the_navigation_names_each_page_once() -> None:
    nav = list(docs.navigation(["a.md", {"B": "b.md"}, {"Group": [{"C": "c.md"}, "b.md"]}]))
    assert docs.nav_problems(nav, {"a.md", "b.md", "d.md"}) == [
        "mkdocs.yml: nav names c.md, which does not exist",
        "mkdocs.yml: nav names b.md twice",
        "mkdocs.yml: nav needs a line for d.md",
    ]


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("docs/faq.md", "[a](update.md#undo) [b](project/celery.md)", "[a](update.md#undo) [b](project/celery.md)"),
        ("docs/decisions/0001-a.md", "[a](../../CONTRIBUTING.md#set-up)", "[a](../contributing.md#set-up)"),
        ("CONTRIBUTING.md", "[a](docs/design.md) ![b](docs/pictures/b.png)", "[a](design.md) ![b](pictures/b.png)"),
        (
            "docs/faq.md",
            "[a](../owners.yml) [b](../tests/)",
            "[a](HOST/blob/main/owners.yml) [b](HOST/tree/main/tests)",
        ),
        ("examples/README.md", "[a](small.yml)", "[a](HOST/blob/main/examples/small.yml)"),
        ("docs/faq.md", "[a](#b) [c](https://example.com/d.md)", "[a](#b) [c](https://example.com/d.md)"),
        ("docs/faq.md", "`[a](../owners.yml)` [`b`](../LICENSE)", "`[a](../owners.yml)` [`b`](HOST/blob/main/LICENSE)"),
        ("docs/faq.md", "```text\n[a](../owners.yml)\n- b\n```", "```text\n[a](../owners.yml)\n- b\n```"),
        ("docs/faq.md", "Two:\n- a\n- b\n  c\n\nd", "Two:\n\n- a\n- b\n    c\n\nd"),
        ("docs/faq.md", "1. a\n   ```sh\n   b\n   ```\n2. c\n   - d", "1. a\n    ```sh\n    b\n    ```\n2. c\n    - d"),
    ],
)
def test_a_page_is_rewritten_for_the_site(page: str, text: str, expected: str) -> None:
    assert for_the_site(page, text, "HOST") == f"{expected}\n"


def test_a_page_of_a_project_keeps_no_link_out_of_its_folder() -> None:
    text = "See [the index](index.md), [b](b.md#c) and\n\n```text\n[d](index.md)\n```"
    expected = "See the index, [b](b.md#c) and\n\n```text\n[d](index.md)\n```\n"
    assert without_links(text, lambda link: link == "index.md") == expected


def test_the_page_of_questions_is_current(render: Renderer) -> None:
    recorded = {
        profile: yaml.safe_load((render({"profile": profile}) / ".copier-answers.yml").read_text(encoding="utf-8"))
        for profile in PROFILES
    }
    page = questions_page((ROOT / "copier.yml").read_text(encoding="utf-8"), recorded)
    assert (ROOT / "docs" / "questions.md").read_text(encoding="utf-8") == page, "run: make docs"


def test_the_page_of_questions_names_what_a_question_needs() -> None:
    page = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    needs = {name: re.findall(r"effect only with (.*)\.", text) for name, text in sections.items()}
    assert {name: found[0] for name, found in needs.items() if found} == {
        "task_examples": "`use_celery=true`",
        "task_platform": "`use_celery=true`",
        "use_redis": "`use_celery=false`",
        "scheduler": "`use_celery=true`",
        "use_flower": "`use_celery=true`",
        "use_kubernetes": "`database=postgresql` or `database=mysql`, and `use_docker=true`",
    }


def test_the_pages_of_projects_are_current(render: Renderer) -> None:
    folder = ROOT / "docs" / "project"
    present = {page.name: page.read_text(encoding="utf-8") for page in folder.iterdir()}
    written = docs.project_pages(render(docs.everything_on()))
    stale = sorted(page for page in present.keys() | written.keys() if present.get(page) != written.get(page))
    assert stale == [], "run: make docs"


def test_the_pages_of_projects_are_all_pages() -> None:
    """The answers of docs/project/ switch every page on."""
    pages = {
        re.sub(r"\{%.*?%\}|\.jinja$", "", Path(page).name)
        for page in working_files("template")
        if re.match(r"template/(\{% if celery_on %\})?docs(\{% endif %\})?/", page)
    }
    assert {page.name for page in (ROOT / "docs" / "project").iterdir()} == pages - {"index.md"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_listing_of_an_example_is_current(render: Renderer, example: Path) -> None:
    """The fixture refuses an answer to a question that does not exist."""
    project = render(yaml.safe_load(example.read_text(encoding="utf-8")))
    assert example.with_suffix(".txt").read_text(encoding="utf-8") == listing(project), "run: make docs"


def test_every_example_is_in_the_table() -> None:
    table = links((ROOT / "examples" / "README.md").read_text(encoding="utf-8"))
    present = {path.name for path in (ROOT / "examples").iterdir()} - {"README.md"}
    assert present == {one for example in EXAMPLES for one in (example.name, f"{example.stem}.txt")}
    assert present <= set(table)


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    records = sorted(path.name for path in folder.glob("0*.md"))
    assert re.findall(r"\((0\d+-.+?\.md)\)", index) == records
    assert [name[:4] for name in records] == [f"{number:04}" for number in range(1, len(records) + 1)]


def make_targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / makefile).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", [page for page in OWN_PAGES if page != "CHANGELOG.md"])
def test_every_make_command_exists(page: str) -> None:
    """Here or in a project."""
    named = set(re.findall(r"(?:^    |^|`)make ([a-z-]+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
    assert named - make_targets("Makefile") - make_targets("template/Makefile.jinja") == set()


def test_no_task_of_a_page_has_the_name_of_one_in_a_test() -> None:
    """A reader may paste it: the project's own tests would then register its name again, which Celery warns about."""
    register = re.compile(r"\.task\([^)]*?name=\"([^\"]+)\"", re.DOTALL)
    pages = {
        name
        for page in [*working_files("docs"), "README.md"]
        if page.endswith(".md")
        for name in register.findall((ROOT / page).read_text(encoding="utf-8"))
    }
    tests = {
        name
        for file in working_files("template/tests")
        for name in register.findall((ROOT / file).read_text(encoding="utf-8"))
    }
    assert len(pages) > 10
    assert len(tests) > 10
    assert pages & tests == set()
