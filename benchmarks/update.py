"""CPU time of `copier update` with Forge's engine beside that of plain Copier on the same templates.

`make bench`, or `python benchmarks/update.py [runs]`. Both update the same unedited project of an old release to the
working tree, by turns, so that a machine that is busy for a while slows both. CPU time is user and system time of the
command and of every process that it waits for: git, the stages, their renders.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.update.world import World

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

OLD = ("v0.1.0", "v0.4.0")
AIM, BOUND = 1.3, 1.6
_MIGRATIONS = re.compile(r"^_migrations:\n(?:[ #].*\n|\n)+", re.MULTILINE)


def isolate(folder: Path) -> None:
    """Keep this machine's settings out; called before Copier is imported, which copies the environment then."""
    (folder / "settings.yml").write_text("{}\n", encoding="utf-8")
    (folder / "gitconfig").write_text("[user]\n\tname = Bench\n\temail = bench@example.com\n", encoding="utf-8")
    # As a user's Python does: without it, both updates would mostly compile Copier's modules.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.update(
        COPIER_CACHE_DIR=str(folder / "cache"),
        COPIER_SETTINGS_PATH=str(folder / "settings.yml"),
        GIT_CONFIG_GLOBAL=str(folder / "gitconfig"),
        GIT_CONFIG_NOSYSTEM="1",
    )


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


def seconds(folder: Path) -> float:
    """Update a project and return the CPU time that it took."""
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", "copier", "update", "--trust", "--defaults"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        sys.exit(f"the update in {folder} ended with {started.returncode}:\n{log.read_text(encoding='utf-8')}")
    return usage.ru_utime + usage.ru_stime


def main(runs: int) -> int:
    """Print both medians and their ratio for each old release; 1 if a ratio is above the bound."""
    with tempfile.TemporaryDirectory(prefix="forge-bench-") as scratch:
        isolate(Path(scratch))
        from tests.update.world import ARCHIVES, World, next_tag, write_releases

        tags = [*ARCHIVES, next_tag()]
        World.releases = Path(scratch) / "releases"
        write_releases(World.releases)
        worlds = {name: World(Path(scratch) / name) for name in ("engine", "plain")}
        without_engine(worlds["plain"].template, tags)
        ratios = [compare(worlds, old, tags[-1], runs) for old in OLD]
    return int(max(ratios) > BOUND)


def compare(worlds: Mapping[str, World], old: str, new: str, runs: int) -> float:
    """Measure updates from one release by turns, print the medians and return their ratio."""
    measured: dict[str, list[float]] = {name: [] for name in worlds}
    # The first round is not counted: Python compiles modules in it.
    for turn in range(runs + 1):
        for name, world in worlds.items():
            taken = seconds(world.project(old).folder)
            if turn:
                measured[name].append(taken)
    medians = {name: statistics.median(figures) for name, figures in measured.items()}
    print(f"{old} to {new}, median of {runs}:")
    for name, figures in measured.items():
        listed = " ".join(f"{figure:.2f}" for figure in figures)
        print(f"  {name:6} {medians[name]:.2f} s CPU   ({listed})")
    ratio = medians["engine"] / medians["plain"]
    print(f"  ratio  {ratio:.2f}         (aim {AIM}, bound {BOUND})", flush=True)
    return ratio


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 5))
