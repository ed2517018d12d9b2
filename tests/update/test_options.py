"""Options of `copier update`, and the places and settings that a project may live with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.update.lab import ANSWERS, FLOWER, LAB, NEW, OLD, numbered
from tests.update.world import Person, World, tree_of

SAME, FAR = f"{LAB}/same.txt", f"{LAB}/far.txt"


def edited(person: Person) -> Person:
    """Change a line that conflicts and others that do not, in files that the release renames and in a folder of another name."""
    person.write(SAME, numbered("same", {10: "mine"}))
    person.write(FAR, numbered("far", {29: "mine"}))
    person.write(f"{LAB}/renamed.txt", numbered("renamed", {25: "mine"}))
    (person.folder / LAB / "folder").rename(person.folder / "docs" / "elsewhere")
    person.commit()
    return person


def assert_merged(person: Person, prefix: str = "") -> None:
    """Check them."""
    assert person.read(FAR) == numbered("far", {2: "theirs", 29: "mine"})
    assert person.read(f"{LAB}/called otherwise.txt") == numbered("renamed", {10: "theirs", 25: "mine"})
    assert person.read("docs/elsewhere/a.txt") == numbered("a", {10: "theirs"})
    assert person.read("docs/elsewhere/c.txt") == numbered("c")
    assert "<<<<<<< forge/yours\nmine\n=======\ntheirs\n>>>>>>> forge/template\n" in person.read(SAME)
    staged = person.git("ls-files", "--unmerged", "--full-name").splitlines()
    assert [(line.split("\t")[0][-1], line.split("\t")[1]) for line in staged] == [
        (stage, prefix + SAME) for stage in "123"
    ]


@pytest.mark.matrix
def test_conflict_rej(made: World) -> None:
    person = edited(made.project(OLD, ANSWERS))
    updated = person.update("--conflict", "rej")
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    assert person.read(SAME) == numbered("same", {10: "mine"})
    rejected = person.read(f"{SAME}.rej")
    assert "-same 10\n+theirs\n" in rejected
    assert f"{SAME}.rej" in updated.report
    assert person.read(FAR) == numbered("far", {2: "theirs", 29: "mine"})
    person.commit("Update")
    before, status = tree_of(person.folder), person.status()
    refused = person.update()
    assert refused.code != 0
    assert f"an earlier conflict is not resolved in:\n  {SAME}.rej" in refused.report
    assert (tree_of(person.folder), person.status()) == (before, status)


@pytest.mark.matrix
def test_rejected_changes_of_an_undone_update_do_not_stop_the_next(made: World) -> None:
    """Older projects ignore `.rej` files, so that undoing leaves them."""
    person = edited(made.project(OLD, ANSWERS))
    person.write(".gitignore", person.read(".gitignore") + "*.rej\n")
    person.commit()
    assert person.update("--conflict", "rej").code == 0
    # Not those of Copier's own patching, which fails where the merge follows a file.
    assert [path.name for path in person.folder.rglob("*.rej")] == ["same.txt.rej"]
    person.undo()
    assert person.exists(f"{SAME}.rej")
    updated = person.update()
    assert updated.code == 0, updated.report
    assert_merged(person)
    assert not person.exists(f"{SAME}.rej")


def test_a_feature_switched_off(made: World) -> None:
    person = made.project(OLD, ANSWERS)
    assert FLOWER.endswith("flower.txt{% endif %}")
    person.write(f"{LAB}/flower.txt", numbered("flower", {5: "mine"}))
    person.commit()
    updated = person.update("--data", "use_flower=false")
    assert updated.code == 0, updated.report
    assert person.stages() == {f"{LAB}/flower.txt": {1, 2}}
    assert person.read(f"{LAB}/flower.txt") == numbered("flower", {5: "mine"})
    assert "flower" not in person.read("Procfile")
    assert "use_flower: True -> False" in updated.report


@pytest.mark.matrix
def test_a_file_that_both_have_renamed_and_changed_is_found_until_it_is_resolved(made: World) -> None:
    person = made.project(OLD, ANSWERS)
    (person.folder / LAB / "renamed.txt").unlink()
    person.write(f"{LAB}/mine.txt", numbered("renamed", {10: "mine"}))
    person.commit()
    assert person.update().code == 0
    names = (f"{LAB}/called otherwise.txt", f"{LAB}/mine.txt")
    assert person.stages() == {f"{LAB}/renamed.txt": {1}, names[1]: {2}, names[0]: {3}}
    person.commit("Not resolved")
    hook = subprocess.run(
        [sys.executable, "-m", "devtools.conflicts", *names],
        cwd=person.folder,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert hook.returncode == 1
    assert all(f"{name}:10: conflict marker" in hook.stderr for name in names)
    refused = person.update()
    assert refused.code != 0
    assert f"an earlier conflict is not resolved in:\n  {names[0]}\n  {names[1]}\n" in refused.report


@pytest.mark.matrix
def test_a_file_that_both_have_renamed_with_conflict_rej(made: World) -> None:
    person = made.project(OLD, ANSWERS)
    (person.folder / LAB / "renamed.txt").unlink()
    person.write(f"{LAB}/mine.txt", numbered("renamed", {10: "mine"}))
    person.commit()
    updated = person.update("--conflict", "rej")
    assert updated.code == 0, updated.report
    assert person.read(f"{LAB}/mine.txt") == numbered("renamed", {10: "mine"})
    assert "-renamed 10\n+theirs\n" in person.read(f"{LAB}/mine.txt.rej")
    assert not person.exists(f"{LAB}/called otherwise.txt")
    assert [path.name for path in person.folder.rglob("*.rej")] == ["mine.txt.rej"]
    assert person.stages() == {}


@pytest.mark.matrix
@pytest.mark.parametrize(
    "options", [("--skip-answered",), ("--vcs-ref", NEW), ("--answers-file", ".copier-answers.yml")]
)
def test_options_that_change_nothing(made: World, options: tuple[str, ...]) -> None:
    person = edited(made.project(OLD, ANSWERS))
    updated = person.update(*options)
    assert updated.code == 0, updated.report
    assert_merged(person)


@pytest.mark.matrix
def test_an_update_to_a_release_that_is_not_the_last(made: World) -> None:
    person = made.project("v0.1.0")
    updated = person.update("--vcs-ref", OLD)
    assert updated.code == 0, updated.report
    assert person.answers()["_commit"] == OLD
    assert person.read(SAME) == numbered("same")


@pytest.mark.matrix
def test_check_update_and_pretend_change_nothing(made: World) -> None:
    person = made.project(OLD, ANSWERS)
    before = tree_of(person.folder)
    command = [sys.executable, "-m", "copier", "check-update", "--output-format", "json"]
    done = subprocess.run(command, cwd=person.folder, stdout=subprocess.PIPE, text=True, check=False)
    assert json.loads(done.stdout)["update_available"] is True
    person.update("--pretend")
    assert (tree_of(person.folder), person.status()) == (before, "")
    assert person.update().code == 0


@pytest.mark.matrix
def test_a_project_inside_a_repository(made: World) -> None:
    person = edited(made.project(OLD, ANSWERS, inside="services/my app"))
    (person.top / "docs" / "lab").mkdir(parents=True)
    (person.top / "docs" / "lab" / "far.txt").write_text("of another project\n", encoding="utf-8")
    Person(person.top, person.top).commit("Outside")
    updated = person.update()
    assert updated.code == 0, updated.report
    assert_merged(person, "services/my app/")
    assert (person.top / FAR).read_text(encoding="utf-8") == "of another project\n"
    assert all("services/my app" in line for line in person.status().splitlines())
    person.undo()
    assert person.status() == ""
    assert person.update().code == 0
    assert_merged(person, "services/my app/")


@pytest.mark.matrix
def test_a_worktree_with_spaces_and_accents(made: World, tmp_path: Path) -> None:
    first = edited(made.project(OLD, ANSWERS))
    folder = tmp_path / "another ä tree"
    first.git("worktree", "add", "--quiet", "-b", "other", str(folder))
    person = Person(folder, folder)
    updated = person.update()
    assert updated.code == 0, updated.report
    assert_merged(person)
    assert first.status() == ""


@pytest.mark.matrix
@pytest.mark.parametrize(
    "setting",
    [
        "merge.conflictStyle=zdiff3",
        "merge.renames=false",
        "diff.noprefix=true",
        "diff.external=false",
        "core.autocrlf=input",
        "commit.gpgSign=true",
        "core.hooksPath=hooks",
        "diff.renames=false",
    ],
)
def test_gits_settings_make_no_difference(made: World, setting: str) -> None:
    person = edited(made.project(OLD, ANSWERS))
    person.git("config", *setting.split("="))
    updated = person.update()
    assert updated.code == 0, updated.report
    assert_merged(person)


@pytest.mark.matrix
def test_a_settings_file_that_somebody_committed(made: World) -> None:
    person = made.project(OLD, ANSWERS)
    person.write("secret/.env.development", "MINE=1\n")
    person.git("add", "--force", "secret/.env.development")
    person.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    assert person.read("secret/.env.development").startswith("MINE=1\n")
    assert "COMES=2\n" in person.read("secret/.env.development")
    assert person.stages() == {}


def markers(person: Person) -> None:
    person.write("notes.txt", "<<<<<<< a\n1\n=======\n2\n>>>>>>> b\n")
    person.commit()


def rejected(person: Person) -> None:
    person.write("notes.txt.rej", "x\n")
    person.commit()


def ignored(person: Person) -> None:
    person.write(".gitignore", person.read(".gitignore") + "*.rej\n")
    person.commit()
    person.write("mine.rej", "x\n")


def merging(person: Person) -> None:
    person.git("update-ref", "MERGE_HEAD", "HEAD")


def rebasing(person: Person) -> None:
    (person.folder / ".git" / "rebase-merge").mkdir()


def picking(person: Person) -> None:
    person.git("update-ref", "CHERRY_PICK_HEAD", "HEAD")


def untracked(person: Person) -> None:
    person.git("config", "status.showUntrackedFiles", "no")
    person.write("mine.txt", "x\n")


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (markers, "an earlier conflict is not resolved in:\n  notes.txt"),
        (rejected, "an earlier conflict is not resolved in:\n  notes.txt.rej"),
        (ignored, "an earlier conflict is not resolved in:\n  mine.rej"),
        (merging, "a merge is in progress"),
        (rebasing, "a rebase is in progress"),
        (picking, "a cherry-pick is in progress"),
        (untracked, "not committed:\n  ?? mine.txt"),
    ],
)
def test_refusals_change_nothing(made: World, prepare: Callable[[Person], None], words: str) -> None:
    person = made.project(OLD, ANSWERS)
    prepare(person)
    before, index = tree_of(person.folder), person.git("ls-files", "--stage")
    secret = person.read("secret/.env.development")
    refused = person.update()
    assert refused.code != 0
    assert words in refused.report
    assert "Nothing was changed." in refused.report
    assert (tree_of(person.folder), person.git("ls-files", "--stage")) == (before, index)
    assert person.read("secret/.env.development") == secret


@pytest.mark.matrix
def test_an_old_git_is_refused(made: World, tmp_path: Path) -> None:
    person = made.project(OLD, ANSWERS)
    shim = tmp_path / "git"
    shim.write_text(
        # Copier itself asks with the version alone.
        f'#!/bin/sh\ncase "$*" in *core.hooksPath*--version) echo git version 2.30.2;; *) exec {shutil.which("git")} "$@";; esac\n',
        encoding="utf-8",
    )
    shim.chmod(0o755)
    refused = person.update(environment={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    assert refused.code != 0
    assert "git 2.38 or later; this is git 2.30" in refused.report
    assert person.status() == ""
