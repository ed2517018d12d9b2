"""A table of what a person does to a project: what is in the files, the index and the report after an update.

All rows go through one update, as they do in a real project; none touches another's files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.update.lab import ANSWERS, LAB, NEW, OLD, block, numbered
from tests.update.world import Person, Updated, World, next_tag

# One process makes the update of all rows.
pytestmark = pytest.mark.xdist_group("edits")

SECRETS = "secret/.env.development"
MINE, THEIRS = "mine", "theirs"
CHANGED, KEPT = {1, 2, 3}, {1, 2}


@dataclass(frozen=True)
class Row:
    """An edit, and the check of what became of it; `stages` is all of it in the index, `report` words of the report."""

    edit: Callable[[Person], None]
    check: Callable[[Person], None]
    stages: Mapping[str, set[int]] = field(default_factory=dict)
    report: tuple[str, ...] = ()


def change(name: str, *lines: int) -> Callable[[Person], None]:
    """Change lines of a numbered file."""
    return lambda person: person.write(f"{LAB}/{name}", numbered(Path(name).stem, dict.fromkeys(lines, MINE)))


def holds(name: str, content: str | bytes) -> Callable[[Person], None]:
    """Check a whole file."""

    def check(person: Person) -> None:
        wanted = content if isinstance(content, bytes) else content.encode()
        assert (person.folder / LAB / name).read_bytes() == wanted

    return check


def gone(*names: str) -> Callable[[Person], None]:
    """Check that there are no such files."""

    def check(person: Person) -> None:
        assert [name for name in names if person.exists(name)] == []

    return check


def both(*steps: Callable[[Person], None]) -> Callable[[Person], None]:
    """Do one after the other."""

    def run(person: Person) -> None:
        for step in steps:
            step(person)

    return run


def marked(name: str, mine: str, theirs: str) -> Callable[[Person], None]:
    """Check that both sides stand between markers."""
    wanted = f"<<<<<<< forge/yours\n{mine}=======\n{theirs}>>>>>>> forge/template\n"

    def check(person: Person) -> None:
        assert wanted in person.read(f"{LAB}/{name}")

    return check


def move(old: str, new: str) -> Callable[[Person], None]:
    """Move a file or a folder."""

    def run(person: Person) -> None:
        target = person.folder / new
        target.parent.mkdir(parents=True, exist_ok=True)
        (person.folder / old).rename(target)

    return run


def delete(name: str) -> Callable[[Person], None]:
    """Delete a file."""
    return lambda person: (person.folder / name).unlink()


def append(name: str, text: str) -> Callable[[Person], None]:
    """Add to a file's end."""
    return lambda person: person.write(name, person.read(name) + text)


def ends(name: str, text: str) -> Callable[[Person], None]:
    """Check a file's end."""

    def check(person: Person) -> None:
        assert person.read(name).endswith(text)

    return check


def nothing(_: Person) -> None:
    """Leave everything as it is, or look at nothing."""


def keeps_settings(person: Person) -> None:
    """The settings file that git ignores: each line is there, what is new comes after a comment."""
    lines = person.read(SECRETS).splitlines()
    assert {"SECRET_OF_MINE=ä=# x", "GOES=changed"} <= set(lines)
    at = lines.index("COMES=2")
    assert lines[at - 2 : at] == [f"# Added by the update to {NEW[1:]}.", "# What comes."]


def executable(person: Person) -> None:
    """Make a file executable and change a line."""
    change("script.txt", 20)(person)
    (person.folder / LAB / "script.txt").chmod(0o755)


def still_executable(person: Person) -> None:
    """Check the merge and the bit."""
    holds("script.txt", numbered("script", {10: THEIRS, 20: MINE}))(person)
    assert (person.folder / LAB / "script.txt").stat().st_mode & 0o111


def link(person: Person) -> None:
    """Put a symbolic link of one's own beside the template's files."""
    (person.folder / LAB / "my link").symlink_to("far.txt")


def is_link(person: Person) -> None:
    """Check it."""
    assert (person.folder / LAB / "my link").readlink() == Path("far.txt")


TABLE = {
    "edits far apart": Row(change("far.txt", 29), holds("far.txt", numbered("far", {2: THEIRS, 29: MINE}))),
    "the same line": Row(
        change("same.txt", 10),
        marked("same.txt", "mine\n", "theirs\n"),
        {"same.txt": CHANGED},
        ("same.txt: you and the release changed the same lines",),
    ),
    "adjacent lines": Row(
        change("adjacent.txt", 11),
        marked("adjacent.txt", "adjacent 10\nmine\n", "theirs\nadjacent 11\n"),
        {"adjacent.txt": CHANGED},
        ("adjacent.txt: you and the release changed the same lines",),
    ),
    "edited, and the release deletes it": Row(
        change("dropped.txt", 3),
        holds("dropped.txt", numbered("dropped", {3: MINE})),
        {"dropped.txt": KEPT},
        ("dropped.txt: CONFLICT (modify/delete)",),
    ),
    "unedited, and the release deletes it": Row(nothing, gone(f"{LAB}/untouched.txt")),
    "edited, and the release renames it": Row(
        change("renamed.txt", 25),
        both(holds("called otherwise.txt", numbered("renamed", {10: THEIRS, 25: MINE})), gone(f"{LAB}/renamed.txt")),
    ),
    "moved, and the release edits it": Row(
        move(f"{LAB}/moved.txt", "docs/mine/moved.txt"),
        both(holds("../mine/moved.txt", numbered("moved", {10: THEIRS})), gone(f"{LAB}/moved.txt")),
    ),
    "a folder moved, and the release adds to it": Row(
        move(f"{LAB}/folder", "docs/elsewhere"),
        both(
            holds("../elsewhere/a.txt", numbered("a", {10: THEIRS})),
            holds("../elsewhere/c.txt", numbered("c")),
            gone(f"{LAB}/folder"),
        ),
    ),
    "deleted, and the release edits it": Row(
        delete(f"{LAB}/deleted.txt"),
        gone(f"{LAB}/deleted.txt"),
        report=(f"Left deleted, as you deleted them:\n  {LAB}/deleted.txt",),
    ),
    "a binary changed by both": Row(
        lambda person: person.write(f"{LAB}/logo.bin", b"\0mine" * 100),
        holds("logo.bin", b"\0mine" * 100),
        {"logo.bin": CHANGED},
        ("Cannot merge binary files: docs/lab/logo.bin",),
    ),
    "CRLF": Row(
        both(
            append(".gitattributes", f"{LAB}/crlf.txt -text\n"),
            lambda person: person.write(f"{LAB}/crlf.txt", numbered("crlf", {20: MINE}).replace("\n", "\r\n")),
        ),
        holds("crlf.txt", numbered("crlf", {10: THEIRS, 20: MINE}).replace("\n", "\r\n")),
    ),
    "a block among blocks that are nearly the same": Row(
        lambda person: person.write(f"{LAB}/stack.yml", block("api") + block("mine") + block("worker") + block("beat")),
        holds("stack.yml", block("proxy") + block("api") + block("mine") + block("worker") + block("beat", "look")),
    ),
    "a settings file that git ignores": Row(
        lambda person: person.write(
            SECRETS, person.read(SECRETS).replace("GOES=1", "GOES=changed") + "SECRET_OF_MINE=ä=# x\n"
        ),
        keeps_settings,
        report=(
            "New settings in secret/.env.development:\n  COMES",
            "No longer read, in secret/.env.development:\n  GOES",
        ),
    ),
    "a settings file that is not there": Row(delete("secret/.env.production"), nothing),
    "an edited example": Row(
        append("app/tasks/example_tasks.py", "# Mine.\n"),
        ends("app/tasks/example_tasks.py", "# Mine.\n"),
        report=("Left as you have them (examples):\n  app/tasks/example_schedule.py\n  app/tasks/example_tasks.py",),
    ),
    "an edited example that the release drops": Row(
        append("app/tasks/example_schedule.py", "# Mine.\n"), ends("app/tasks/example_schedule.py", "# Mine.\n")
    ),
    "a deleted example that the release edits": Row(
        delete("tests/test_example_tasks.py"), gone("tests/test_example_tasks.py")
    ),
    "edited, and the release excludes it": Row(
        change("excluded.txt", 7),
        holds("excluded.txt", numbered("excluded", {7: MINE})),
        {"excluded.txt": KEPT},
        ("excluded.txt: CONFLICT (modify/delete)",),
    ),
    "both add a file": Row(
        lambda person: person.write(f"{LAB}/both.txt", "mine\n"),
        marked("both.txt", "mine\n", "theirs\n"),
        {"both.txt": {2, 3}},
        ("both.txt: CONFLICT (add/add)",),
    ),
    "an executable bit": Row(executable, still_executable),
    "a name with spaces and accents": Row(
        change("a name, ä.txt", 20), holds("a name, ä.txt", numbered("a name, ä", {10: THEIRS, 20: MINE}))
    ),
    "a symbolic link": Row(link, is_link),
    "files of one's own": Row(
        lambda person: person.write("app/tasks/my queue ü.py", "x = 1\n"),
        holds("../../app/tasks/my queue ü.py", "x = 1\n"),
    ),
    "a question removed": Row(nothing, nothing, report=("gone: no longer asked; it was True",)),
    "a choice removed": Row(nothing, nothing, report=("colour: red -> green",)),
    "a validator tightened": Row(nothing, nothing, report=("size: huge -> small",)),
    "a question renamed": Row(nothing, holds("answers.txt", "green mine small\n"), report=("new_name: mine (new)",)),
    "a question added": Row(nothing, nothing, report=("added: False (new)",)),
    "what the release says": Row(
        nothing,
        nothing,
        report=(
            "OLD_SETTING is now NEW_SETTING; the old name is still read",
            "Changed behaviour:\n  Flower is green.",
            "To do by hand:\n  Paint it.",
            "git reset --hard && git clean -fd",
        ),
    ),
}


@pytest.fixture(scope="module")
def after(made: World) -> tuple[Person, Updated]:
    """The project with every edit of the table, updated."""
    person = made.project(OLD, ANSWERS)
    for row in TABLE.values():
        row.edit(person)
    person.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    return person, updated


@pytest.mark.parametrize("name", TABLE)
def test_row(after: tuple[Person, Updated], name: str) -> None:
    person, updated = after
    row = TABLE[name]
    row.check(person)
    stages = person.stages()
    assert {path: stages.get(f"{LAB}/{path}") for path in row.stages} == row.stages
    for words in row.report:
        assert words in updated.report


def test_there_is_no_other_conflict_and_nothing_unstaged(after: tuple[Person, Updated]) -> None:
    person, _ = after
    wanted = {f"{LAB}/{path}" for row in TABLE.values() for path in row.stages}
    assert set(person.stages()) == wanted
    lines = [line for line in person.status().splitlines() if line[1] != " "]
    assert {line[3:].strip('"') for line in lines} == wanted


def test_the_report_can_be_read_later(after: tuple[Person, Updated]) -> None:
    person, updated = after
    path = person.folder / person.git("rev-parse", "--git-path", "forge-update/./report.txt").strip()
    assert path.read_text(encoding="utf-8").strip() in updated.report


def test_the_real_step(world: World) -> None:
    """0.2.0 renames a module and a setting, moves a line of the Procfile, asks a question and retires a file."""
    person = world.project("v0.1.0")
    person.write("app/core/limits.py", person.read("app/core/limits.py") + "\nMINE = 1\n")
    person.write("Procfile", "mine: sleep 1\n" + person.read("Procfile"))
    person.write("migrations/app/README.md", "Mine.\n")
    append(SECRETS, "APP_MAX_BODY=5\n")(person)
    person.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    # 0.4.1 retires what 0.2.0 called app/core/body_limit.py.
    assert person.stages() == {"migrations/app/README.md": KEPT, "app/core/limits.py": KEPT}
    assert person.read("migrations/app/README.md") == "Mine.\n"
    assert person.read("app/core/limits.py").endswith("\nMINE = 1\n")
    processes = re.findall(r"^(\w+):", person.read("Procfile"), re.MULTILINE)
    assert processes.index("mine") < processes.index("mail") < processes.index("worker")
    assert "APP_MAX_BODY=5\n" in person.read(SECRETS)
    assert person.answers()["timezone"] == "UTC"
    for words in (
        f"Forge: updated from 0.1.0 to {next_tag()[1:]}",
        "migrations/app/README.md: CONFLICT (modify/delete)",
        "APP_MAX_BODY is now APP_MAX_BODY_BYTES",
        "timezone: UTC (new)",
    ):
        assert words in updated.report


def test_a_later_question_switches_nothing_off(world: World) -> None:
    """A feature that the new release would not choose by itself stays, and none that was not chosen comes."""
    person = world.project("v0.1.0", {"profile": "minimal", "scheduler": "beat", "auth": "basic"})
    before = person.answers()
    updated = person.update()
    assert updated.code == 0, updated.report
    after = person.answers()
    assert {name: after[name] for name in before if name != "_commit"} == {
        name: value for name, value in before.items() if name != "_commit"
    }
    assert person.exists("app/tasks/example_schedule.py")
    assert not person.exists(".github")
    assert "flower" not in person.read("Procfile")
