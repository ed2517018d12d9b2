"""The answers file of a project, as the engine reads it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.problem import Problem
from engine.project import Project


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"name: [1\n",
            ".copier-answers.yml is not valid YAML (while parsing a flow sequence): restore the version of",
        ),
        (b"- name\n", ".copier-answers.yml holds no answers: restore the version of your last commit."),
        (b"", ".copier-answers.yml holds no answers: restore the version of your last commit."),
    ],
)
def test_a_broken_answers_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / ".copier-answers.yml").write_bytes(content)
    project = Project(tmp_path, tmp_path, "", tmp_path / ".git", "HEAD", "sha1", ".copier-answers.yml")
    with pytest.raises(Problem, match=re.escape(words)):
        project.answers()
