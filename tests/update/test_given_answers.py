"""Answers that cannot be meant as they are given: misspelled ones, and an answers file that was edited by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forge_template import git, project_environment
from tests.update.world import UPDATE_LIMIT, Person, World, next_tag


@pytest.fixture
def project_repo(world: World) -> Person:
    """A small project of the newest release."""
    return world.project(next_tag(), {"profile": "minimal"})


def test_a_misspelled_question_is_refused_with_the_one_that_is_meant(project_repo: Person) -> None:
    updated = project_repo.update("--data", "use_flowers=true")
    assert updated.code, updated.report
    assert "--data names no question of the template: use_flowers (did you mean use_flower?)" in updated.report
    assert "Nothing was changed" in updated.report
    assert project_repo.status() == ""


def test_a_switch_takes_no_other_word(project_repo: Person) -> None:
    """Copier takes every word that it does not know for true."""
    updated = project_repo.update("--data", "use_flower=maybe")
    assert updated.code, updated.report
    assert "--data use_flower=maybe: answer true or false." in updated.report
    assert project_repo.status() == ""


@pytest.fixture
def update_options(project_repo: Person) -> Callable[..., str]:
    """`update_options(…)` runs the project's own `make update` with options, which fails, and returns what it prints."""

    def run(*options: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "devtools.update", "--skip-tests", *options],
            cwd=project_repo.folder,
            env=project_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=UPDATE_LIMIT,
            check=False,
        )
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stdout
        assert "update: nothing was changed." in done.stdout
        assert project_repo.status() == ""
        return done.stdout

    return run


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--data=database=oracle", "--data database: 'oracle' is not in ['postgresql', 'mysql', 'sqlite']"),
        ("--data=project_slug=A B", "--data project_slug: 'A B' is not a short name; use lower-case letters"),
        ("--vcs-ref=nonsense", "has no nonsense"),
    ],
)
def test_what_cannot_be_is_a_sentence(update_options: Callable[..., str], option: str, words: str) -> None:
    assert words in update_options(option)


@pytest.mark.parametrize(
    ("line", "written", "words"),
    [
        ("_commit:", "_commit: v9.9.9", "has no v9.9.9"),
        ("_commit:", "_commit: 1234567", "Put it in quotes: _commit: '1234567'"),
        ("_src_path:", "_src_path: ../nowhere", "a path relative to the folder in which the project was generated"),
    ],
)
def test_what_the_answers_file_cannot_name_is_a_sentence(
    project_repo: Person, update_options: Callable[..., str], line: str, written: str, words: str
) -> None:
    answers = project_repo.read(".copier-answers.yml")
    project_repo.write(".copier-answers.yml", re.sub(f"^{line}.*", written, answers, flags=re.MULTILINE))
    project_repo.commit()
    assert words in update_options()


def test_a_project_of_a_pre_release_hears_what_it_can_do(
    project_repo: Person, update_options: Callable[..., str]
) -> None:
    answers = project_repo.read(".copier-answers.yml")
    source = re.search(r"^_src_path: (.*)$", answers, re.MULTILINE)
    assert source
    tag = next_tag()
    commit = git(Path(source[1]), "commit-tree", f"{tag}^{{tree}}", "-p", tag, "-m", "A candidate").strip()
    git(Path(source[1]), "tag", "v99.0.0rc1", commit)
    project_repo.write(".copier-answers.yml", re.sub("^_commit:.*", "_commit: v99.0.0rc1", answers, flags=re.MULTILINE))
    project_repo.commit()
    try:
        assert "This project has 99.0.0rc1, which is newer than the newest release" in update_options()
    finally:
        git(Path(source[1]), "tag", "--delete", "v99.0.0rc1")


def test_the_report_says_what_a_changed_answer_leaves_to_its_owner(world: World) -> None:
    project_repo = world.project(next_tag(), {"profile": "standard", "auth": "complete"})
    options = ("database=sqlite", "project_slug=other", "auth=basic", "scheduler=redbeat", "task_examples=[]")
    updated = project_repo.update(*(part for option in options for part in ("--data", option)))
    assert updated.code == 0, updated.report
    told = updated.report.partition("To do by hand:\n")[2]
    for words in (
        "Your rows are in postgresql, and DATABASE_URL in secret/.env.* still names it.",
        "Compose's project is named other now, with new, empty volumes.",
        "Accounts whose address was never verified can log in now",
        "redbeat does not know what beat last ran",
        "Tasks of email, cleanup that still wait end as unknown tasks",
    ):
        assert words in told


def test_an_answer_edited_by_hand_is_named_with_the_option_that_brings_it(project_repo: Person) -> None:
    project_repo.replace(".copier-answers.yml", "use_flower: false", "use_flower: true")
    project_repo.commit()
    updated = project_repo.update()
    assert updated.code, updated.report
    assert ".copier-answers.yml was edited by hand: use_flower" in updated.report
    assert "  --data use_flower=true" in updated.report
    assert project_repo.status() == ""
    project_repo.git("revert", "--no-edit", "HEAD")
    given = project_repo.update("--data", "use_flower=true")
    assert given.code == 0, given.report
    assert "flower:" in project_repo.read("Procfile")
    # What an update recorded is not an edit, although the release stays the same.
    project_repo.commit()
    assert project_repo.update().code == 0


def test_an_answer_that_writes_nothing_may_be_edited(project_repo: Person) -> None:
    project_repo.replace(".copier-answers.yml", "use_redis: true", "use_redis: false")
    project_repo.commit()
    updated = project_repo.update()
    assert updated.code == 0, updated.report
