"""The same answers give the same bytes on any day, offline."""

from __future__ import annotations

import ast
import datetime
import re
import socket
from pathlib import Path
from typing import Any, NoReturn

import arrow
import pytest
import yaml

from forge_template import ROOT
from tests.conftest import Renderer
from tests.copy.sound import files
from tests.copy.test_questions import contents


def recorded(project: Path) -> dict[str, Any]:
    """Return the answers that a project records."""
    answers: dict[str, Any] = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
    return {name: answer for name, answer in answers.items() if not name.startswith("_")}


@pytest.mark.parametrize(
    "answers", [{}, {"profile": "minimal", "license": "mit"}, {"profile": "production", "use_celery": False}]
)
def test_same_bytes_on_another_day_offline(
    render: Renderer, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]
) -> None:
    first = render(answers)
    year = recorded(first)["copyright_year"]
    later = arrow.get(2041, 7, 8)

    def no_network(*arguments: object) -> NoReturn:
        raise AssertionError(f"rendering opened a connection: {arguments}")

    monkeypatch.setattr(arrow, "now", lambda *_: later)
    monkeypatch.setattr(arrow, "utcnow", lambda *_: later)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)

    again = render.fresh(recorded(first))
    assert files(again) == files(first)
    assert contents(again) == contents(first)
    assert (again / ".copier-answers.yml").read_bytes() == (first / ".copier-answers.yml").read_bytes()
    assert recorded(again)["copyright_year"] == year
    # The clock was really another one: a project without recorded answers has its year.
    assert recorded(render.fresh(answers))["copyright_year"] == "2041"


def test_year_of_a_new_project_is_the_current_one(render: Renderer) -> None:
    assert recorded(render({}))["copyright_year"] == str(datetime.datetime.now(datetime.UTC).year)


def test_secrets_are_random_and_nothing_else_is(render: Renderer) -> None:
    first, second = render({}), render.fresh({})
    assert files(first) == files(second)
    changed = {name for name in files(first) if (first / name).read_bytes() != (second / name).read_bytes()}
    assert changed
    assert [name for name in changed if not name.startswith("secret/.env.")] == []


def test_no_secret_is_in_the_answers(render: Renderer) -> None:
    project = render({})
    answers = (project / ".copier-answers.yml").read_text(encoding="utf-8")
    first = (project / "secret" / ".env.production").read_text(encoding="utf-8")
    second = (render.fresh({}) / "secret" / ".env.production").read_text(encoding="utf-8")
    random = set(first.splitlines()) - set(second.splitlines())
    assert random
    for line in random:
        assert line.split("=", 1)[1] not in answers


def test_extension_is_pure_and_self_contained() -> None:
    """No clock, network, process or git; an update loads two releases of the file into one process."""
    allowed = {
        "__future__",
        "collections",
        # `owner_only` sets the mode of the file from which Copier takes it.
        "contextlib",
        "pathlib",
        # The error that ends Copier with a message.
        "copier",
        "itertools",
        "jinja2",
        "re",
        "secrets",
        "shlex",
        "textwrap",
        "typing",
        "unicodedata",
    }
    for path in (ROOT / "extensions").glob("*.py"):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                imported.add(str(node.module).split(".")[0])
        assert imported <= allowed, path


def test_a_server_and_its_clients_have_one_password(render: Renderer) -> None:
    for database, server in (("postgresql", "postgres"), ("mysql", "mariadb")):
        secret = render({"database": database}) / "secret"
        production = (secret / ".env.production").read_text(encoding="utf-8")
        for file, setting in ((".env.redis", "REDIS_PASSWORD"), (f".env.{server}", f"{server.upper()}_PASSWORD")):
            found = re.search(rf"^{setting}=(.+)$", (secret / file).read_text(encoding="utf-8"), re.MULTILINE)
            assert found
            assert f":{found[1]}@" in production
            assert found[1] not in (secret / ".env.development").read_text(encoding="utf-8")
