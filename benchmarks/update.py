"""CPU time of `copier update` with Forge's engine beside that of plain Copier on the same templates.

Both update the same unedited project of an old release to the working tree, by turns, so that a machine that is busy for a
while slows both. CPU time is user and system time of the command and of every process that it waits for: git, the stages,
their renders.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.commands import cpu_seconds
from benchmarks.context import Context
from benchmarks.parts import Metric, Part
from benchmarks.results import Result

OLD = ("v0.1.0", "v0.4.0")
_WHAT = """\
CPU time of `copier update` of an unedited project of an old release to the working tree, with Forge's engine, and with plain Copier
on the same templates without their migrations. The aim is a ratio of 1.3; `make bench` fails above 1.6."""
_BASELINE = "plain Copier"
_FORGE = "Forge"
_MIGRATIONS = re.compile(r"^_migrations:\n(?:[ #].*\n|\n)+", re.MULTILINE)


@contextmanager
def isolated(folder: Path) -> Iterator[None]:
    """Keep this machine's settings out; Copier copies the environment when it is imported."""
    (folder / "settings.yml").write_text("{}\n", encoding="utf-8")
    (folder / "gitconfig").write_text("[user]\n\tname = Bench\n\temail = bench@example.com\n", encoding="utf-8")
    changed = {
        "COPIER_CACHE_DIR": str(folder / "cache"),
        "COPIER_SETTINGS_PATH": str(folder / "settings.yml"),
        "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def without_engine(template: Path, tags: list[str]) -> None:
    """Take the engine out of every release of a template repository."""
    from forge_template import git

    for tag in tags:
        git(template, "checkout", "--quiet", "--force", tag)
        config = template / "copier.yml"
        text, found = _MIGRATIONS.subn("", config.read_text(encoding="utf-8"))
        if found:
            config.write_text(text, encoding="utf-8")
            git(template, "commit", "--quiet", "--no-verify", "--all", "--message", f"{tag} without migrations")
            git(template, "tag", "--force", tag)


def _run(context: Context) -> Result:
    result = Result.new("update", quick=context.quick)
    with isolated(context.scratch):
        from tests.update.world import ARCHIVES, World, next_tag, write_releases

        tags = [*ARCHIVES, next_tag()]
        World.releases = context.scratch / "releases"
        write_releases(World.releases)
        worlds = {name: World(context.scratch / name.replace(" ", "-")) for name in (_BASELINE, _FORGE)}
        without_engine(worlds[_BASELINE].template, tags)
        for old in OLD[-1:] if context.quick else OLD:
            # The first round is not counted: Python compiles modules in it.
            warm_up = 0 if context.quick else 1
            for turn in range(context.turns(3) + warm_up):
                for name, world in worlds.items():
                    folder = world.project(old).folder
                    command = [sys.executable, "-m", "copier", "update", "--trust", "--defaults"]
                    taken = cpu_seconds(command, folder, folder.with_suffix(".log"))
                    if turn >= warm_up:
                        result.add(f"from {old}", name, "cpu", taken)
                        context.say(f"  {name} from {old}: {taken:.2f} s CPU")
    return result


_METRICS = (Metric("cpu", "CPU, s", 2, ratio=True),)
PART = Part("update", "copier update", _WHAT, _METRICS, _BASELINE, _run, bound=1.6)
