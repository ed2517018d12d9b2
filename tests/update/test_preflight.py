"""What an update is refused for, without an update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import preflight
from engine.problem import Problem
from engine.project import Project


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("git version 2.37.9", "this is git 2.37. Install a newer git"),
        ("git version 1.99.0", "this is git 1.99. Install a newer git"),
        ("nothing", "this is git 0.0. Install a newer git"),
        ("git version 2.38.0", "SHA-256"),
        ("git version 3.0.1 (Apple Git-200)", "SHA-256"),
    ],
)
def test_git_is_2_38_or_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, words: str) -> None:
    monkeypatch.setattr("engine.git.text", lambda *_: printed)
    # Which is looked at next.
    project = Project(tmp_path, tmp_path, "", tmp_path / ".git", "HEAD", "sha256", ".copier-answers.yml")
    with pytest.raises(Problem, match=words):
        preflight.check(project, tmp_path, "v0.1.0", {})


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("maybe", "bool", True),
        ("", "bool", True),
        ("2", "bool", True),
        *((word, "bool", False) for word in ("true", " YES ", "on", "1", "n", "Off", "0")),
        ("maybe", "str", False),
    ],
)
def test_a_switch_is_given_a_word_that_copier_knows(value: str, kind: str, expected: bool) -> None:
    assert preflight._is_unclear(value, {"type": kind}) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [("text", "text"), ("true", '"true"'), ("1", '"1"'), (True, "true"), (["a"], '["a"]')]
)
def test_an_answer_is_written_as_data_reads_it(value: Any, expected: str) -> None:
    assert preflight._as_option(value) == expected


def test_the_paths_of_a_release_are_those_with_every_feature_on(tmp_path: Path) -> None:
    for name in (
        "plain.txt",
        "{% if a_on %}a{% endif %}/{% if b_on %}b.py{% endif %}.jinja",
        "{{ _copier_conf.answers_file }}.jinja",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert preflight._written(tmp_path) == {"plain.txt", "a/b.py"}
