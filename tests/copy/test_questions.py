"""copier.yml holds only what Copier knows, and each question has a text, a default and an effect."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from forge_template import ROOT
from tests.conftest import Renderer
from tests.copy.sound import files

# Copier 9.19 ignores what it does not know, so that a misspelt key does nothing.
SETTINGS = {
    "_answers_file",
    "_envops",
    "_exclude",
    "_external_data",
    "_jinja_extensions",
    "_message_after_copy",
    "_message_after_update",
    "_message_before_copy",
    "_message_before_update",
    "_migrations",
    "_min_copier_version",
    "_preserve_symlinks",
    "_secret_questions",
    "_skip_if_exists",
    "_subdirectory",
    "_templates_suffix",
}
KEYS = {
    "ask",
    "choices",
    "default",
    "help",
    "multiline",
    "multiselect",
    "placeholder",
    "qmark",
    "secret",
    "type",
    "validator",
    "when",
}
TYPES = {"bool", "float", "int", "json", "path", "str", "yaml"}

# For each question, an answer other than the default, and what else must be answered for the question to matter.
EFFECTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "project_name": ("Another Name", {"project_slug": "my-app", "author_name": "Somebody"}),
    "project_slug": ("another-slug", {}),
    "description": ("Another description", {}),
    "author_name": ("Another Author", {}),
    "author_email": ("another@example.org", {}),
    "license": ("apache-2.0", {}),
    "python_version": ("3.14", {"ci": "github"}),
    "copyright_year": ("1999", {"license": "mit"}),
    "profile": ("minimal", {}),
    "database": ("mysql", {}),
    "auth": ("complete", {}),
    "use_celery": (False, {}),
    "task_examples": (["reports"], {}),
    "use_redis": (True, {"use_celery": False, "profile": "minimal"}),
    "scheduler": ("none", {}),
    "timezone": ("Europe/Berlin", {}),
    "use_flower": (False, {}),
    "use_docker": (False, {}),
    "use_kubernetes": (True, {"use_docker": True}),
    "observability": (["prometheus"], {}),
    "use_cors": (True, {}),
    "ci": ("github", {}),
}


def unknown_keys(config: dict[str, Any]) -> list[str]:
    """Return what Copier would ignore in a copier.yml."""
    found = sorted(name for name in config if name.startswith("_") and name not in SETTINGS)
    for name, question in config.items():
        if name.startswith("_"):
            continue
        if not isinstance(question, dict):
            found.append(f"{name}: not a mapping")
            continue
        found.extend(f"{name}.{key}" for key in sorted(set(question) - KEYS))
        if question.get("type") not in TYPES:
            found.append(f"{name}: type {question.get('type')!r}")
    return found


def config() -> dict[str, Any]:
    """Return copier.yml."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    return loaded


def test_no_unknown_keys() -> None:
    assert unknown_keys(config()) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"_skip_if_exist": []}, "_skip_if_exist"),
        ({"_tasks": ["true"]}, "_tasks"),
        ({"extra": {"type": "str", "defualt": "x"}}, "extra.defualt"),
        ({"extra": {"type": "string"}}, "extra: type 'string'"),
        ({"extra": "x"}, "extra: not a mapping"),
    ],
)
def test_the_lint_sees_mistakes(change: dict[str, Any], found: str) -> None:
    assert unknown_keys({**config(), **change}) == [found]


def test_no_key_is_given_twice() -> None:
    """YAML's last duplicate wins without a word."""
    names = [
        line.split(":", 1)[0]
        for line in (ROOT / "copier.yml").read_text(encoding="utf-8").splitlines()
        if line[:1].isalpha() or line.startswith("_")
    ]
    assert len(names) == len(set(names))


def test_every_question_explains_itself(questions: dict[str, dict[str, Any]], asked: set[str]) -> None:
    for name in asked:
        question = questions[name]
        assert "default" in question, name
        if question.get("ask") is not False:
            text = str(question.get("help", "")).strip()
            assert "?" in text, name
            # A terminal of 80 columns shows them without scrolling.
            assert len(textwrap.wrap(text, 76)) <= 2, name
            choices = question.get("choices", [])
            assert all(len(str(choice)) <= 70 for choice in choices), name
        if question["type"] == "str" and "choices" not in question and question.get("ask") is not False:
            assert "validator" in question, name


def test_answers_are_recorded_though_not_asked(render: Renderer, asked: set[str]) -> None:
    """A default that changes later must not change an old project."""
    for answers in ({}, {"profile": "minimal", "use_celery": False}):
        recorded = yaml.safe_load((render(answers) / ".copier-answers.yml").read_text(encoding="utf-8"))
        assert asked - set(recorded) == set()
        assert {name for name in recorded if not name.startswith("_")} - asked == set()


def test_renderer_refuses_an_answer_to_no_question(render: Renderer) -> None:
    with pytest.raises(ValueError, match="use_celeri"):
        render({"use_celeri": False})


def test_choice_that_does_not_exist_is_refused(render: Renderer) -> None:
    with pytest.raises(ValueError, match="oracle"):
        render({"database": "oracle"})


def test_every_question_has_a_row(asked: set[str]) -> None:
    assert set(EFFECTS) == asked


@pytest.mark.parametrize("question", sorted(EFFECTS))
def test_no_inert_questions(render: Renderer, question: str) -> None:
    value, context = EFFECTS[question]
    before, after = render(context), render({**context, question: value})
    assert contents(before) != contents(after)


def contents(project: Path) -> dict[str, bytes]:
    """Return a project's files, less the recorded answers and the random secrets."""
    return {
        name: (project / name).read_bytes()
        for name in files(project)
        if name != ".copier-answers.yml" and not name.startswith("secret/.env.")
    }
