"""docs/configuration.md says what the settings' classes say."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.core.config import settings
from app.core.config.base import BaseConcern

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"


def _rows() -> dict[str, tuple[str, str]]:
    row = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", flags=re.MULTILINE)
    return {name: (default, text) for name, default, text in row.findall(PAGE.read_text(encoding="utf-8"))}


def _shown(default: object) -> str:
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, list):
        default = ",".join(default)
    if isinstance(default, bool):
        default = str(default).lower()
    return f"`{default}`" if default != "" else "empty"


@pytest.mark.parametrize("concern", settings.concerns(), ids=lambda concern: type(concern).__name__)
def test_each_setting_stands_in_the_docs_with_its_default(concern: BaseConcern) -> None:
    rows = _rows()
    for field, info in type(concern).model_fields.items():
        assert info.description, f"{type(concern).__name__}.{field} has no description"
        expected = (_shown(info.default), info.description)
        assert rows.get(type(concern).variable(field)) == expected


def test_the_docs_name_no_setting_that_does_not_exist() -> None:
    known = {type(concern).variable(field) for concern in settings.concerns() for field in type(concern).model_fields}
    assert set(_rows()) == known
