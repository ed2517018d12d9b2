"""Where a project lives: repositories, git's settings and attributes, links, and what an update must not touch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import copier
import pytest

from forge_template import git
from tests.update.lab import ANSWERS, LAB, NEW, OLD, numbered
from tests.update.test_options import FAR, SAME, assert_merged, edited
from tests.update.world import Person, Updated, World, tree_of

LINK, BOTH = f"{LAB}/link.txt", f"{LAB}/both.txt"
ODD_NAMES = ('it\'s "mine" ä.txt', "mein Ordner ü/a b.txt", f"{LAB}/a\ttab.txt")


def top(person: Person) -> Person:
    """Return the person at the repository's top."""
    return Person(person.top, person.top)


def changes_nothing(person: Person, words: str) -> None:
    """Update; it must be refused in plain words, with everything as it was."""

    def look() -> tuple[dict[str, bytes], str, str, str, str]:
        whole = top(person)
        secret = person.read("secret/.env.development")
        return (
            tree_of(person.top),
            whole.status(),
            whole.git("ls-files", "--stage", "-v"),
            whole.git("show-ref"),
            secret,
        )

    before = look()
    refused = person.update()
    assert refused.code != 0, refused.report
    assert words in refused.report
    assert "Nothing was changed." in refused.report
    assert "Traceback" not in refused.report
    assert look() == before


def check_update(person: Person) -> tuple[int, dict[str, object]]:
    """Ask Copier whether there is a newer release."""
    done = subprocess.run(
        [sys.executable, "-m", "copier", "check-update", "--output-format", "json"],
        cwd=person.folder,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return done.returncode, found


@pytest.mark.matrix
def test_unedited_examples_are_brought_up_to_date_and_then_there_is_nothing_newer(made: World) -> None:
    person = made.project(OLD, ANSWERS)
    assert check_update(person)[1]["update_available"] is True
    assert person.exists("app/tasks/example_schedule.py")
    updated = person.update()
    assert updated.code == 0, updated.report
    for path in ("app/tasks/example_tasks.py", "tests/test_example_tasks.py"):
        assert person.read(path).endswith("# The release's.\n")
    assert not person.exists("app/tasks/example_schedule.py")
    assert "Left as you have them" not in updated.report
    person.commit()
    code, found = check_update(person)
    assert (code, found["update_available"]) == (0, False)


@pytest.mark.matrix
def test_skip_answered_takes_over_renamed_answers(made: World) -> None:
    person = made.project(OLD, ANSWERS)
    assert person.update("--skip-answered").code == 0
    assert person.answers()["new_name"] == "mine"
    assert person.read(f"{LAB}/answers.txt") == "green mine small\n"


@pytest.mark.matrix
def test_an_older_release_is_refused(made: World) -> None:
    person = made.project(NEW)
    before = tree_of(person.folder)
    refused = person.update("--vcs-ref", OLD)
    assert refused.code != 0
    assert "Downgrades are not supported" in refused.report
    assert (tree_of(person.folder), person.status()) == (before, "")


@pytest.mark.matrix
def test_an_answers_file_of_another_name(made: World, tmp_path: Path) -> None:
    name = ".forge answers.yml"
    folder = tmp_path / "project"
    copier.run_copy(
        str(made.template),
        folder,
        data=dict(ANSWERS),
        answers_file=name,
        vcs_ref=OLD,
        defaults=True,
        unsafe=True,
        quiet=True,
    )
    git(folder, "init", "--quiet", "--initial-branch=main")
    person = Person(folder, folder)
    person.commit("Generated")
    edited(person)
    updated = person.update("--answers-file", name)
    assert updated.code == 0, updated.report
    assert_merged(person)
    assert f"_commit: {NEW}\n" in person.read(name)
    assert "new_name: mine\n" in person.read(name)
    assert not person.exists(".copier-answers.yml")


def crowd(person: Person, tmp_path: Path) -> None:
    """Give a project odd names, links and a submodule of its owner's."""
    for name in ODD_NAMES:
        person.write(name, name)
    (person.folder / "nowhere").symlink_to("does not exist")
    (person.folder / "papers").symlink_to("docs")
    (person.folder / LINK).unlink()
    (person.folder / LINK).symlink_to("far.txt")
    # The template's folder, kept elsewhere: what the release adds to it goes there.
    shutil.move(person.folder / LAB / "folder", person.folder / "elsewhere")
    (person.folder / LAB / "folder").symlink_to("../../elsewhere")
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "--quiet")
    (library / "library.txt").write_text("x\n", encoding="utf-8")
    git(library, "add", "--all")
    git(library, "commit", "--quiet", "--message", "Library")
    person.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "vendor/library")


def assert_crowd_is_there(person: Person) -> None:
    for name in ODD_NAMES:
        assert person.read(name) == name
    links = {"nowhere": "does not exist", "papers": "docs", LINK: "far.txt", f"{LAB}/folder": "../../elsewhere"}
    assert {name: os.readlink(person.folder / name) for name in links} == links
    assert person.read("elsewhere/a.txt") == numbered("a", {10: "theirs"})
    assert person.read("elsewhere/c.txt") == numbered("c")
    assert person.read("vendor/library/library.txt") == "x\n"
    assert person.git("submodule", "status").startswith(" ")


@pytest.mark.matrix
def test_odd_names_links_and_a_submodule(made: World, tmp_path: Path) -> None:
    person = made.project(OLD, ANSWERS)
    crowd(person, tmp_path)
    person.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    assert_crowd_is_there(person)
    assert person.stages() == {LINK: {1, 2, 3}}
    assert f"{LINK}: CONFLICT (distinct types)" in updated.report
    assert "Left deleted" not in updated.report
    assert "~" not in "".join(os.listdir(person.folder / LAB))
    person.git("checkout", "--theirs", "--", LINK)
    assert person.read(LINK) == numbered("link", {10: "theirs"})


@pytest.mark.matrix
def test_a_link_in_place_of_a_file_with_conflict_rej(made: World) -> None:
    person = made.project(OLD, ANSWERS)
    (person.folder / LINK).unlink()
    (person.folder / LINK).symlink_to("far.txt")
    person.commit()
    updated = person.update("--conflict", "rej")
    assert updated.code == 0, updated.report
    assert os.readlink(person.folder / LINK) == "far.txt"
    assert "-link 10\n+theirs\n" in person.read(f"{LINK}.rej")
    assert person.stages() == {}
    assert f"  {LINK}.rej" in updated.report


SETTINGS = {
    "that change what git prints": (
        "color.ui=always",
        "color.grep=always",
        "core.quotePath=true",
        "core.abbrev=6",
        "diff.noprefix=true",
        "diff.relative=true",
        "diff.external=false",
        "grep.fullName=true",
        "log.showSignature=true",
        "merge.conflictStyle=diff3",
        "status.branch=true",
        "status.short=true",
        "status.relativePaths=false",
    ),
    "that change what git does": (
        "apply.whitespace=error",
        "commit.gpgSign=true",
        "core.autocrlf=true",
        "core.hooksPath=hooks",
        "core.splitIndex=true",
        "core.untrackedCache=true",
        "merge.directoryRenames=false",
        "merge.renames=false",
        "rerere.enabled=true",
        "submodule.recurse=true",
        "user.useConfigOnly=true",
    ),
}


@pytest.mark.matrix
@pytest.mark.parametrize("kind", SETTINGS)
def test_gits_settings_together(made: World, kind: str) -> None:
    person = edited(made.project(OLD, ANSWERS, inside="in side"))
    person.write("hooks/pre-commit", "#!/bin/sh\nexit 1\n")
    (person.folder / "hooks" / "pre-commit").chmod(0o755)
    person.commit()
    for setting in SETTINGS[kind]:
        person.git("config", *setting.split("=", 1))
    updated = person.update()
    assert updated.code == 0, updated.report
    assert_merged(person, "in side/")
    assert "\x1b" not in updated.report.partition("Forge: updated")[2]


def with_attributes(made: World, line: str) -> tuple[Person, Updated]:
    """Update an edited project whose files all have an attribute; checked out again, as a clone would be."""
    person = edited(made.project(OLD, ANSWERS))
    person.write(".gitattributes", person.read(".gitattributes") + line)
    person.commit()
    person.git("rm", "-r", "--quiet", "--cached", ".")
    person.git("reset", "--quiet", "--hard")
    assert person.status() == ""
    updated = person.update()
    assert updated.code == 0, updated.report
    return person, updated


@pytest.mark.matrix
def test_crlf_by_attribute(made: World) -> None:
    person, _ = with_attributes(made, "*.txt text eol=crlf\n")
    assert person.stages() == {SAME: {1, 2, 3}}
    assert person.read(FAR) == numbered("far", {2: "theirs", 29: "mine"}).replace("\n", "\r\n")
    assert "<<<<<<< forge/yours\r\nmine\r\n=======\r\ntheirs\r\n" in person.read(SAME)
    assert {line[1] for line in person.status().splitlines()} == {" ", "U"}


@pytest.mark.matrix
def test_merge_union_by_attribute(made: World) -> None:
    person, _ = with_attributes(made, "*.txt merge=union\n")
    assert person.stages() == {}
    assert "same 9\nmine\ntheirs\nsame 11\n" in person.read(SAME)


@pytest.mark.matrix
def test_a_shallow_clone_without_a_branch(made: World, tmp_path: Path) -> None:
    first = edited(made.project(OLD, ANSWERS))
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", first.folder.as_uri(), str(folder))
    person = Person(folder, folder)
    person.git("checkout", "--quiet", "--detach")
    updated = person.update()
    assert updated.code == 0, updated.report
    assert_merged(person)


@pytest.mark.matrix
def test_two_projects_in_one_repository_each_with_a_base_of_its_own(made: World) -> None:
    one = made.project(OLD, ANSWERS, inside="one")
    other = Person(one.top, one.top / "other b")
    shutil.copytree(one.folder, other.folder, symlinks=True)
    edited(one)
    edited(other)
    for person, options, prefix in ((one, (), "one/"), (other, ("--data", "use_flower=false"), "other b/")):
        updated = person.update(*options)
        assert updated.code == 0, updated.report
        listed = top(person).git("status", "--porcelain", "-z", "--no-renames").split("\0")
        assert all(line[3:].startswith(prefix) for line in listed if line)
        assert_merged(person, prefix)
        person.write(SAME, numbered("same", {10: "both"}))
        person.commit()
    assert one.git("for-each-ref", "--format=%(refname)", "refs/forge/base").count("\n") == 2
    assert one.exists(f"{LAB}/flower.txt")
    assert not other.exists(f"{LAB}/flower.txt")
    # The base of each is what it was rendered with, also when the other was updated after it.
    for person in (one, other):
        updated = person.update()
        assert updated.code == 0, updated.report
        assert person.status() == ""


@pytest.mark.matrix
def test_a_sparse_repository_around_the_project(made: World) -> None:
    person = edited(made.project(OLD, ANSWERS, inside="one"))
    top(person).write("other/far.txt", "of another project\n")
    top(person).commit()
    top(person).git("sparse-checkout", "set", "one")
    assert not top(person).exists("other")
    updated = person.update()
    assert updated.code == 0, updated.report
    assert_merged(person, "one/")
    assert not top(person).exists("other")
    assert top(person).git("diff", "--cached", "--name-only", "--", "other") == ""


@pytest.mark.matrix
@pytest.mark.parametrize("staged", [False, True])
def test_a_change_outside_the_project_is_not_lost(made: World, staged: bool) -> None:
    """Copier asks git about the project's folder alone, but the result is written with a reset of the whole index."""
    person = edited(made.project(OLD, ANSWERS, inside="one"))
    whole = top(person)
    whole.write("two words.txt", "committed\n")
    whole.commit()
    whole.write("two words.txt", "precious\n")
    if staged:
        whole.git("add", "--all")
    changes_nothing(person, f"not committed:\n  {'M ' if staged else ' M'} two words.txt")
    whole.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    assert_merged(person, "one/")
    assert whole.read("two words.txt") == "precious\n"


def skipped(person: Person) -> None:
    person.git("update-index", "--skip-worktree", "Procfile")
    person.write("Procfile", "mine: sleep 1\n")


def assumed(person: Person) -> None:
    person.git("update-index", "--assume-unchanged", "Procfile")
    person.write("Procfile", "mine: sleep 1\n")


def sparse(person: Person) -> None:
    # Git leaves a file where it has not looked whether it is as it was.
    person.status()
    person.git("sparse-checkout", "set", "--no-cone", "/*", "!/Procfile")


def ignored(person: Person) -> None:
    person.write(".gitignore", f"{person.read('.gitignore')}{BOTH}\n")
    person.commit()
    person.write(BOTH, "mine alone\n")


def taken_out_of_git(person: Person) -> None:
    person.write(".gitignore", f"{person.read('.gitignore')}Procfile\n")
    person.git("rm", "--quiet", "--cached", "Procfile")
    person.commit()
    person.write("Procfile", "mine: sleep 1\n")


def a_folder(person: Person) -> None:
    (person.folder / FAR).unlink()
    person.write(f"{FAR}/inner.txt", "x\n")
    person.commit()


def a_file(person: Person) -> None:
    shutil.rmtree(person.folder / LAB / "folder")
    person.write(f"{LAB}/folder", "x\n")
    person.commit()


def coloured(person: Person) -> None:
    person.git("config", "color.grep", "always")
    person.git("config", "grep.fullName", "true")
    person.write("my notes.txt", "<<<<<<< a\n1\n=======\n2\n>>>>>>> b\n")
    person.commit()


def sha256(person: Person) -> None:
    shutil.rmtree(person.top / ".git")
    git(person.top, "init", "--quiet", "--initial-branch=main", "--object-format=sha256")
    person.commit()


def reverting(person: Person) -> None:
    person.git("update-ref", "REVERT_HEAD", "HEAD")


def locked(person: Person) -> None:
    lock = person.top / ".git" / "refs" / "forge" / "base" / "root.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()


def packing(person: Person) -> None:
    (person.top / ".git" / "packed-refs.lock").touch()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (
            locked,
            "refs/forge/base/root.lock\nIf no other update runs here, a killed one left it: delete it, then update.",
        ),
        (packing, "/.git/packed-refs.lock\n"),
        (skipped, "git is told not to look at:\n  in side/Procfile\n"),
        (assumed, "git is told not to look at:\n  in side/Procfile\n"),
        (ignored, f"in the way of files that the template may write:\n  {BOTH} (git ignores it)\n"),
        (taken_out_of_git, "in the way of files that the template may write:\n  Procfile (git ignores it)\n"),
        (a_folder, f"  {FAR} (a folder, where the template has a file)\n"),
        (a_file, f"  {LAB}/folder (a file, where the template has a folder)\n"),
        (coloured, "an earlier conflict is not resolved in:\n  my notes.txt\n"),
        (sha256, "Copier cannot update a repository with SHA-256 objects."),
        (reverting, "a revert is in progress"),
    ],
)
def test_refusals_change_nothing(made: World, prepare: Callable[[Person], None], words: str) -> None:
    person = made.project(OLD, ANSWERS, inside="in side")
    prepare(person)
    changes_nothing(person, words)


@pytest.mark.matrix
def test_a_sparse_project_is_refused(made: World) -> None:
    person = made.project(OLD, ANSWERS)
    sparse(person)
    changes_nothing(person, "git is told not to look at:\n  Procfile\n")
    person.git("sparse-checkout", "disable")
    assert person.update().code == 0
