"""The pages in docs/ match the project: settings, code, links, and the index."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.core.config import load_groups
from app.core.config.base import SettingsGroup
from tests import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def _without_code_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def _rows() -> dict[str, tuple[str, str]]:
    row = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", flags=re.MULTILINE)
    text = "".join(_without_code_blocks(page) for page in PAGES)
    return {name: (default, meaning) for name, default, meaning in row.findall(text)}


def _shown(default: object) -> str:
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, list):
        default = ",".join(default)
    if isinstance(default, bool):
        default = str(default).lower()
    return f"`{default}`" if default != "" else "empty"


@pytest.mark.parametrize("group", load_groups(), ids=lambda group: type(group).__name__)
def test_each_setting_has_a_row_with_its_default_and_description(group: SettingsGroup) -> None:
    rows = _rows()
    for field, info in type(group).model_fields.items():
        assert info.description, f"{type(group).__name__}.{field} has no description"
        expected = (_shown(info.default), info.description)
        variable = type(group).variable(field)
        row = f"| `{variable}` | {expected[0]} | {expected[1]} |"
        assert rows.get(variable) == expected, f"a page in docs/ needs this row:\n{row}"


def test_each_row_of_a_setting_names_an_existing_setting() -> None:
    known = {type(group).variable(field) for group in load_groups() for field in type(group).model_fields}
    assert not set(_rows()) - known, "docs/ has rows of settings that do not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_in_a_page_compiles_and_its_imports_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # Pages contain new modules: a line such as "`app/features/orders/models.py`:" precedes their code.
    built = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for one in PAGES
        for path in re.findall(r"^`(app/\S+\.py)`:$", one.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    for code in re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        compile(code, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("app.") and node.module not in built:
                module = importlib.import_module(str(node.module))
                unknown = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not unknown, f"{node.module} has no {unknown}"


def _links(page: Path) -> list[str]:
    """Return the links of a page to files, without those in code and those to other sites."""
    text = re.sub(r"`[^`\n]*`", "", _without_code_blocks(page))
    return [link for link in _LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub builds them."""
    headings = re.findall(r"^#+ (.+)$", _without_code_blocks(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_each_link_of_a_page_leads_to_a_page_of_this_project(page: Path) -> None:
    broken = []
    for link in _links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken, f"{page.name} has broken links"


def test_the_index_links_every_page() -> None:
    linked = {link.partition("#")[0] for link in _links(DOCS / "index.md")}
    missing = {page.name for page in PAGES} - linked - {"index.md"}
    assert not missing, f"docs/index.md needs a line for {sorted(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_test_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [
        f"{path}::{function}" if function else path
        for path, function in _TEST.findall(text)
        # Pages contain new modules, tests among them.
        if f"`{path}`:\n" not in text
        and not ((ROOT / path).is_file() and (not function or _has_function(ROOT / path, function)))
    ]
    assert not missing, f"{page.name} names tests that do not exist"


def _has_function(path: Path, name: str) -> bool:
    return re.search(rf"^(?:async )?def {name}\(", path.read_text(encoding="utf-8"), flags=re.MULTILINE) is not None


def test_the_readme_links_the_index() -> None:
    assert "docs/index.md" in _links(ROOT / "README.md")
