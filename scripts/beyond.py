"""Run a project's checks and tests on the newest versions beyond the bounds of its requirements: `make beyond`.

Renders a project of the working tree in a temporary folder, lifts the upper bounds there, and writes what moved and what failed as
Markdown. It exits with 1 if something failed. Nothing in this repository is changed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from attempts import Failure, attempt, report

from forge_template import clone_working_tree, git, project_environment

# They bring every requirement but the drivers of the other databases.
ANSWERS = ("profile=production", "scheduler=redbeat", "observability=[prometheus, opentelemetry, sentry]")
TARGETS = ("check", "test-all")

_PINS = re.compile(r"^constraint-dependencies = \[\n.*?^\]\n", re.MULTILINE | re.DOTALL)
_BOUNDED = re.compile(r'^( +"[A-Za-z0-9._-]+(?:\[[^\]]+\])?)([<>=!~][^";]*)(.*",)$', re.MULTILINE)


def without_pins(pyproject: str) -> str:
    """Return a pyproject.toml without the versions that the template tested."""
    return _PINS.sub("", pyproject)


def without_upper_bounds(pyproject: str) -> str:
    """Return a pyproject.toml whose requirements have lower bounds only."""

    def lift(line: re.Match[str]) -> str:
        kept = [bound for bound in line[2].split(",") if not bound.strip().startswith("<")]
        return f"{line[1]}{','.join(kept)}{line[3]}"

    return _BOUNDED.sub(lift, pyproject)


def locked(lock: str) -> dict[str, str]:
    """Return the versions in a uv.lock by package; several where platforms differ."""
    found: dict[str, str] = {}
    for package in tomllib.loads(lock)["package"]:
        if "version" in package and package.get("source", {}).keys().isdisjoint({"editable", "virtual"}):
            name, version = package["name"], package["version"]
            found[name] = f"{found[name]}, {version}" if name in found else version
    return found


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return a line for each package whose version differs."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [f"- {name}: {before.get(name, 'none')} → {after.get(name, 'none')}" for name in names]


def try_newest(project: Path, targets: Sequence[str]) -> tuple[list[str], list[Failure]]:
    """Lift the bounds in a project, and return what moved beyond them and what failed."""
    pyproject = project / "pyproject.toml"
    bounded = without_pins(pyproject.read_text(encoding="utf-8"))
    versions = []
    for text in (bounded, without_upper_bounds(bounded)):
        pyproject.write_text(text, encoding="utf-8")
        (project / "uv.lock").unlink(missing_ok=True)
        failure = attempt(["uv", "lock", "--quiet"], project)
        if failure:
            return [], [failure]
        versions.append(locked((project / "uv.lock").read_text(encoding="utf-8")))
    changes = moved(*versions)
    # The tests within the bounds are those of `make pins`.
    runs = [attempt(["make", target], project) for target in targets] if changes else []
    return changes, [failure for failure in runs if failure]


def generate(scratch: Path) -> Path:
    """Return a project of the working tree."""
    template = clone_working_tree(scratch / "template")
    project = scratch / "project"
    answers = [f"--data={answer}" for answer in ANSWERS]
    copier = [sys.executable, "-m", "copier", "copy", "--trust", "--defaults", "--quiet", "--vcs-ref=HEAD", *answers]
    subprocess.run([*copier, str(template), str(project)], env=project_environment(), check=True)
    # Its checks are those of the files that git lists.
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    return project


def main() -> None:
    """Run the targets on the newest versions."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--report", type=Path, help="write the result to this file instead of the terminal")
    parser.add_argument("targets", nargs="*", default=TARGETS, help=f"make's targets to run: {' '.join(TARGETS)}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forge-beyond-") as scratch:
        changes, failures = try_newest(generate(Path(scratch)), options.targets)
    result = report(failures, "The newest versions within the bounds, and beyond them:", changes)
    if options.report:
        options.report.write_text(result, encoding="utf-8")
    else:
        print(result)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
