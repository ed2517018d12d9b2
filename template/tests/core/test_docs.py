"""docs/configuration.md says what the settings' classes say; the code in docs/ compiles and names what is there."""

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
PAGE = DOCS / "configuration.md"


def _rows() -> dict[str, tuple[str, str]]:
    row = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", flags=re.MULTILINE)
    text = "".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md")))
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
def test_each_setting_stands_in_the_docs_with_its_default(group: SettingsGroup) -> None:
    rows = _rows()
    for field, info in type(group).model_fields.items():
        assert info.description, f"{type(group).__name__}.{field} has no description"
        expected = (_shown(info.default), info.description)
        variable = type(group).variable(field)
        row = f"| `{variable}` | {expected[0]} | {expected[1]} |"
        assert rows.get(variable) == expected, f"docs/configuration.md needs this row:\n{row}"


def test_the_docs_name_no_setting_that_does_not_exist() -> None:
    known = {type(group).variable(field) for group in load_groups() for field in type(group).model_fields}
    assert not set(_rows()) - known, "docs/configuration.md has rows of settings that do not exist"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_code_in_the_docs_compiles_and_imports_what_is_there(page: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        compile(code, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("app."):
                module = importlib.import_module(str(node.module))
                unknown = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not unknown, f"{node.module} has no {unknown}"


def test_links_between_pages_lead_somewhere() -> None:
    links = re.compile(r"\]\(([^):#]+)\)")
    for page in DOCS.glob("*.md"):
        missing = [link for link in links.findall(page.read_text(encoding="utf-8")) if not (DOCS / link).exists()]
        assert not missing, f"{page.name} links to {missing}"
