"""An update that is killed, undone as it says and run again ends where one ends that nobody has killed; and so on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.update.random_edits import NEW_SETTING, TOP_TAG, everything_changes
from tests.update.world import FIRST, UPDATE_LIMIT, Person, World, next_tag, tree_of

# One process makes the whole update that the others are compared with.
pytestmark = pytest.mark.xdist_group("recovery")

OLD = FIRST
SECRETS = "secret/.env.development"
MINE = "# Mine.\n"
TICK = 0.001
SHARES = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The releases, and one on top that changes something of everything."""
    world = World(tmp_path_factory.mktemp("later"))
    world.release(TOP_TAG, everything_changes)
    return world


def edit(person: Person, *, conflict: bool) -> Person:
    """Edit far away from what the release changes, and with `conflict` what it retires."""
    person.write("app/core/logging.py", MINE + person.read("app/core/logging.py"))
    person.write("app/worker/event_loop.py", MINE + person.read("app/worker/event_loop.py"))
    person.write("app/tasks/mine.py", '"""Mine."""\n')
    person.write(SECRETS, person.read(SECRETS) + "MY_KEY=äöü # mine\n")
    if conflict:
        person.write("devtools/conflicts.py", MINE + person.read("devtools/conflicts.py"))
    person.commit()
    return person


class State(NamedTuple):
    """What an update leaves."""

    tree: dict[str, bytes]
    staged: str
    status: str
    settings: list[str]

    @classmethod
    def of(cls, person: Person) -> State:
        """Look."""
        names = re.findall(r"^(\w+)=", person.read(SECRETS), re.MULTILINE)
        return cls(tree_of(person.folder), person.git("ls-files", "--stage"), person.status(), names)


class Whole(NamedTuple):
    """An update that nobody kills."""

    state: State
    seconds: float


@pytest.fixture(scope="module")
def whole(later: World) -> Whole:
    """The update that the others are compared with."""
    person = edit(later.project(OLD), conflict=True)
    started = time.monotonic()
    updated = person.update()
    taken = time.monotonic() - started
    assert updated.code == 0, updated.report
    assert set(person.stages()) == {"devtools/conflicts.py"}
    assert person.read("app/core/log_setup.py").startswith(MINE)
    assert person.read("app/runtime/event_loop.py").startswith(MINE)
    assert NEW_SETTING in person.read(SECRETS)
    return Whole(State.of(person), taken)


@contextmanager
def started(person: Person) -> Iterator[subprocess.Popen[bytes]]:
    """Start an update in a process group of its own, and kill all of the group in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "copier", "update", "--trust", "--defaults"],
        cwd=person.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(UPDATE_LIMIT)


def ended(process: subprocess.Popen[bytes], within: float) -> bool:
    """Tell whether the process ends within these seconds."""
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill_when(person: Person, happened: Callable[[], bool]) -> bool:
    """Kill an update as soon as something has happened; false if it ended before that."""
    limit = time.monotonic() + UPDATE_LIMIT
    with started(person) as process:
        while not happened():
            if ended(process, TICK):
                return False
            assert time.monotonic() < limit, "neither happened nor ended"
    return True


def undo(person: Person) -> None:
    """Do what the report says. A git that was killed leaves locks, which git, or the next update, asks people to delete."""
    for lock in (person.top / ".git").rglob("*.lock"):
        lock.unlink()
    person.undo()


def a_file(name: str) -> Callable[[Person], Callable[[], bool]]:
    return lambda person: (person.folder / name).exists


def answers_changed(person: Person) -> Callable[[], bool]:
    before = person.read(".copier-answers.yml")
    return lambda: not (person.folder / ".copier-answers.yml").exists() or person.read(".copier-answers.yml") != before


def index_changed(person: Person) -> Callable[[], bool]:
    """Copier writes the index too: what counts is what is written once the merge is there."""
    index = person.top / ".git" / "index"
    merged = a_file(".git/refs/forge/template")(person)
    seen: list[tuple[int, int]] = []

    def happened() -> bool:
        if not merged():
            return False
        found = index.stat()
        seen.append((found.st_mtime_ns, found.st_ino))
        return seen[0] != seen[-1]

    return happened


POINTS: dict[str, Callable[[Person], Callable[[], bool]]] = {
    "settings saved": a_file(f".git/forge-update/saved/{SECRETS}"),
    "before is done": a_file(".git/forge-update/state.json"),
    "answers rewritten": answers_changed,
    "Copier has patched": a_file("docs/released.md"),
    "merging": a_file(".git/refs/forge/template"),
    "index written": index_changed,
    "base kept": a_file(".git/refs/forge/base/root"),
}


# Each costs an update and a half; what these have to tell beside their neighbours is told now and then.
RARE = {"Copier has patched", "settings saved", "before is done", "answers rewritten", "merging", "base kept"}


@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=[pytest.mark.matrix] if point in RARE else []) for point in POINTS]
)
def test_killed_undone_and_run_again(later: World, whole: Whole, point: str) -> None:
    person = edit(later.project(OLD), conflict=True)
    before = tree_of(person.folder)
    lines = person.read(SECRETS).splitlines()
    assert kill_when(person, POINTS[point](person)), f"the update ended before: {point}"
    undo(person)
    assert person.status() == ""
    assert tree_of(person.folder) == before
    assert set(lines) <= set(person.read(SECRETS).splitlines())

    updated = person.update()
    assert updated.code == 0, updated.report
    assert State.of(person) == whole.state
    assert set(lines) <= set(person.read(SECRETS).splitlines())


@pytest.mark.matrix
def test_killed_again_and_again(later: World, whole: Whole) -> None:
    person = edit(later.project(OLD), conflict=True)
    lines = person.read(SECRETS).splitlines()
    for share in SHARES:
        with started(person) as process:
            ended(process, whole.seconds * share)
        undo(person)
        assert person.status() == ""
        assert set(lines) <= set(person.read(SECRETS).splitlines())
    updated = person.update()
    assert updated.code == 0, updated.report
    assert State.of(person) == whole.state
    # What a killed update wrote beside a file is no setting, and no litter.
    assert sorted(path.name for path in (person.folder / "secret").glob(".env.*")) == [
        ".env.development",
        ".env.production",
    ]


@pytest.mark.matrix
def test_what_a_killed_write_leaves_is_dropped(later: World) -> None:
    person = later.project(OLD)
    # A write that was killed: half of the settings, beside the file and beside what was saved of it.
    half = person.read(SECRETS)[:40]
    person.write(f"{SECRETS}.forge-1", half)
    person.write(f".git/forge-update/saved/{SECRETS}.forge-1", half)
    assert person.update().code == 0
    assert not list((person.folder / "secret").glob("*.forge-*"))


def test_lost_settings_come_back(later: World) -> None:
    person = edit(later.project(OLD), conflict=False)
    lines = person.read(SECRETS).splitlines()
    assert kill_when(person, POINTS["before is done"](person))
    undo(person)
    (person.folder / SECRETS).unlink()
    assert person.update().code == 0
    assert set(lines) <= set(person.read(SECRETS).splitlines())


def stage(person: Person, world: World, name: str) -> None:
    """Run a stage as Copier does."""
    versions = {"FROM": OLD, "TO": TOP_TAG}
    environment = {f"VERSION_{end}": tag for end, tag in versions.items()}
    environment |= {f"VERSION_PEP440_{end}": tag.removeprefix("v") for end, tag in versions.items()}
    arguments = [name, "--answers-file=.copier-answers.yml", f"--source={world.template}"]
    subprocess.run(
        [sys.executable, str(world.template / "migrations"), *arguments],
        cwd=person.folder,
        env={**os.environ, **environment},
        check=True,
        timeout=UPDATE_LIMIT,
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.matrix
def test_stages_run_twice(later: World, whole: Whole, tmp_path: Path) -> None:
    person = edit(later.project(OLD), conflict=True)
    stage(person, later, "before")
    once = State.of(person)
    stage(person, later, "before")
    assert State.of(person) == once
    person.undo()
    kept = person.top / ".git" / "forge-update"
    shutil.copytree(kept, tmp_path / "kept")
    # Copier's own work, without which the stage after has no answers to read.
    assert person.update().code == 0
    assert State.of(person) == whole.state

    shutil.copytree(tmp_path / "kept", kept, dirs_exist_ok=True)
    stage(person, later, "after")
    assert State.of(person) == whole.state


SQLITE = {"profile": "production", "database": "sqlite"}


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("answers", "edits"),
    [
        pytest.param({}, True, id="standard-edited"),
        pytest.param(SQLITE, False, id="sqlite-unedited"),
        pytest.param({"profile": "minimal"}, False, id="minimal-unedited"),
        pytest.param({}, False, id="standard-unedited", marks=pytest.mark.matrix),
        pytest.param(SQLITE, True, id="sqlite-edited", marks=pytest.mark.matrix),
    ],
)
def test_one_step_equals_two(later: World, answers: dict[str, Any], edits: bool) -> None:
    people = [later.project(OLD, answers) for _ in range(2)]
    if edits:
        for person in people:
            edit(person, conflict=False)
    at_once, by_steps = people
    assert at_once.update().code == 0
    for tag in (next_tag(), TOP_TAG):
        updated = by_steps.update("--vcs-ref", tag)
        assert updated.code == 0, updated.report
        assert by_steps.stages() == {}
        by_steps.commit(tag)
    at_once.commit()
    assert tree_of(at_once.folder) == tree_of(by_steps.folder)
    assert at_once.git("rev-parse", "HEAD^{tree}") == by_steps.git("rev-parse", "HEAD^{tree}")
