"""copier.yml holds only what Copier knows, and each question has a text, a default and an effect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from copier.errors import UserMessageError
from prompt_toolkit.utils import get_cwidth

from forge_template import ROOT
from tests.conftest import Keyboard, Renderer
from tests.copy.sound import files

# Copier shows this before each question.
PREFIX = "🎤 "
# A terminal has 80 columns; this leaves room for one that is slightly narrower.
COLUMNS = 76
MOST_QUESTIONS = 9
CONFIRMATION = "write_project"

# Copier 9.19 ignores what it does not know, so that a misspelled key does nothing.
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
    "task_platform": (False, {}),
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
        assert str(question.get("help", "")).count("?") == 1, name
        if question["type"] == "str" and "choices" not in question and name != "copyright_year":
            assert "validator" in question, name


def test_a_terminal_shows_each_help_text_in_two_lines(questions: dict[str, dict[str, Any]], asked: set[str]) -> None:
    for name in asked:
        lines = f"{PREFIX}{questions[name]['help']}".splitlines()
        assert len(lines) <= 2, name
        assert [line for line in lines if get_cwidth(line) > COLUMNS] == [], name
        choices = [f" » ● {choice}" for choice in questions[name].get("choices", [])]
        assert [choice for choice in choices if get_cwidth(choice) > COLUMNS] == [], name


Copy = Callable[..., None]


@pytest.fixture
def copy(template: Path) -> Copy:
    """`copy(target, **data)` runs Copier without `defaults`, so that it asks."""

    def run(target: Path, *, defaults: bool = False, **data: Any) -> None:
        copier.run_copy(str(template), target, data=data, defaults=defaults, vcs_ref="HEAD", unsafe=True, quiet=True)

    return run


@pytest.mark.parametrize("profile", ["minimal", "standard", "production"])
def test_enter_answers_at_most_nine_questions(
    copy: Copy, keyboard: Keyboard, render: Renderer, tmp_path: Path, profile: str
) -> None:
    up, down = "\x1b[A", "\x1b[B"
    keyboard.keys["profile"] = {"minimal": up, "standard": "", "production": down}[profile]
    copy(tmp_path / "project")
    assert list(keyboard.shown)[:3] == ["project_name", "project_slug", "profile"]
    assert list(keyboard.shown)[-1] == CONFIRMATION
    assert len(keyboard.shown) <= MOST_QUESTIONS
    answers, expected = (
        yaml.safe_load((folder / ".copier-answers.yml").read_text(encoding="utf-8"))
        for folder in (tmp_path / "project", render({"profile": profile}))
    )
    assert answers == expected
    assert answers["profile"] == profile


def test_the_summary_shows_every_option_before_anything_is_written(
    copy: Copy, keyboard: Keyboard, asked: set[str], tmp_path: Path
) -> None:
    long = {"description": "word " * 39 + "word", "author_name": "A " * 49 + "A"}
    copy(tmp_path / "project", profile="production", **long)
    summary = keyboard.shown[CONFIRMATION]
    lines = summary.splitlines()
    assert [line for line in lines if get_cwidth(line) > COLUMNS] == []
    # All of it is visible in a terminal of 24 lines.
    assert len(lines) < 24
    answers = yaml.safe_load((tmp_path / "project" / ".copier-answers.yml").read_text(encoding="utf-8"))
    text = " ".join(summary.split())
    for name in asked:
        value = f"[{', '.join(answers[name])}]" if isinstance(answers[name], list) else str(answers[name])
        assert f"{name}={value.lower() if isinstance(answers[name], bool) else value}" in text
    assert "--data NAME=VALUE" in text


def test_no_at_the_summary_writes_nothing(copy: Copy, keyboard: Keyboard, tmp_path: Path) -> None:
    keyboard.keys[CONFIRMATION] = "n"
    with pytest.raises(UserMessageError, match=r"Nothing was written\. .*--data NAME=VALUE"):
        copy(tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_a_computed_value_cannot_be_given(copy: Copy, questions: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """Copier 9.19.1 would render with it and not record it."""
    computed = [name for name, question in questions.items() if question.get("when") is False and name != "stopped"]
    assert computed
    for name in computed:
        with pytest.raises(UserMessageError, match=rf"^{name} is computed from other answers"):
            copy(tmp_path / name, defaults=True, **{name: "x"})
        assert not (tmp_path / name).exists()


def test_a_question_that_is_not_asked_takes_data(render: Renderer, questions: dict[str, dict[str, Any]]) -> None:
    for name, question in questions.items():
        if question.get("ask") is False:
            value, context = EFFECTS[name]
            project = render({**context, name: value})
            answers = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
            assert answers[name] == value


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"project_name": " "}, "project_name.* ' ' is empty; enter"),
        ({"project_name": "x" * 61}, "project_name.* 'x{39}…' has 61 characters; use at most 60"),
        ({"project_name": "My App "}, "project_name.* 'My App ' starts or ends with a space; remove it"),
        ({"project_name": 'A "b"', "project_slug": "a"}, "project_name.* 'A \"b\"' contains '\"', .*; remove it"),
        ({"project_slug": "A B"}, "project_slug.* 'A B' is not .* use .* for example 'a-b'"),
        ({"project_slug": "x" * 51}, "project_slug.* 'x{39}…' has 51 characters; use at most 50"),
        ({"author_email": "me"}, "author_email.* 'me' is not .*; use for example hello@example.com"),
        ({"timezone": "berlin"}, "timezone.* 'berlin' is not .*; use for example UTC or Europe/Berlin"),
        ({"auth": "complete", "use_celery": False}, "auth.* 'complete' .* use_celery is false; use 'basic', or set"),
        ({"use_kubernetes": True, "database": "sqlite"}, "use_kubernetes.* true needs .*; use database=postgresql or"),
    ],
)
def test_an_error_names_the_question_the_value_the_rule_and_the_fix(
    render: Renderer, answer: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        render(answer)


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
