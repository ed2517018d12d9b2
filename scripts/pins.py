"""Pin the newest versions that the bounds allow, then run the checks and the tests: `make pins`.

Writes `pins.toml.jinja`, the versions for generated projects, and the list in this repository's own pyproject.toml. The
bounds stay where they are: a person raises them. uv's own settings name the registry.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attempts import attempt, report

from forge_template import ROOT

PYTHON = "3.11"
UV = str(Path(sys.executable).with_name("uv"))
HEADER = "{#- Written by scripts/pins.py: the tested versions, each where an answer brings its package. #}"

_REQUIREMENT = re.compile(r'^ +"([^"]+)",$')
_CONDITION = re.compile(r"^\{%-? (if|endif)(?: (.+?))? %\}$")
_NAME = re.compile(r"^[A-Za-z0-9._-]+")
_OWN_PINS = re.compile(r"(?<=^constraint-dependencies = \[\n).*?(?=^\]$)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Requirement:
    """A line of pyproject.toml, and the answer that writes it: an empty condition always does."""

    text: str
    condition: str = ""

    @property
    def name(self) -> str:
        """Return the package's normalized name."""
        return _normalized(self.text)


@dataclass(frozen=True)
class Pin:
    """A version, and the packages that require its package."""

    text: str
    parents: frozenset[str]


def requirements(pyproject: str) -> Iterator[Requirement]:
    """Yield the direct requirements of a pyproject.toml, which may be a template."""
    condition = ""
    for line in pyproject.partition("\n[tool.uv]\n")[0].partition("\ndependencies = [")[2].splitlines():
        if line.startswith("{%"):
            found = _CONDITION.match(line)
            if not found or (found[1] == "if" and condition):
                sys.exit(f"pyproject.toml.jinja has {line!r} among its requirements; use an `if` with one condition.")
            condition = found[2] or ""
        elif found := _REQUIREMENT.match(line):
            yield Requirement(found[1], condition)


def resolve(wanted: Iterable[Requirement]) -> list[Pin]:
    """Return the newest versions of these packages and of all that they require, for every platform."""
    command = [UV, "pip", "compile", "--quiet", "--universal", "--no-header", f"--python-version={PYTHON}"]
    # In a folder of its own: in this one, uv would keep to the versions that are pinned now.
    with tempfile.TemporaryDirectory(prefix="forge-pins-") as folder:
        compiled = subprocess.run(
            [*command, "--annotation-style=line", "-"],
            cwd=folder,
            input="\n".join(requirement.text for requirement in wanted),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if compiled.returncode:
        # uv has written the reason to stderr.
        sys.exit("Nothing was written: the bounds in pyproject.toml allow no set of versions.")
    pins = []
    for line in compiled.stdout.splitlines():
        text, _, via = line.partition("# via ")
        pins.append(Pin(text.strip(), frozenset(map(_normalized, via.split(", ")))))
    return pins


def project_pins(wanted: list[Requirement], pins: list[Pin]) -> str:
    """Return `pins.toml.jinja`: each pin below the conditions of the requirements that lead to its package."""
    parents: defaultdict[str, set[str]] = defaultdict(set)
    for pin in pins:
        parents[_normalized(pin.text)] |= pin.parents
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for pin in pins:
        needed_by = _ancestors(_normalized(pin.text), parents)
        conditions = {requirement.condition for requirement in wanted if requirement.name in needed_by}
        alternatives = {part for condition in conditions for part in condition.split(" or ")}
        groups["" if "" in conditions else " or ".join(sorted(alternatives))].append(f'\n  "{pin.text}",')
    written = [
        f"\n{{%- if {condition} %}}{''.join(lines)}\n{{%- endif %}}" if condition else "".join(lines)
        for condition, lines in sorted(groups.items())
    ]
    return f"{HEADER}{''.join(written)}\n"


def _ancestors(name: str, parents: dict[str, set[str]]) -> set[str]:
    found = {name}
    waiting = [name]
    while waiting:
        new = parents[waiting.pop()] - found
        found |= new
        waiting.extend(new)
    return found


def _normalized(text: str) -> str:
    found = _NAME.match(text)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def refresh(root: Path) -> list[str]:
    """Write the pins of both kinds below `root`, and return each pin that was removed or added."""
    wanted = list(requirements((root / "template" / "pyproject.toml.jinja").read_text(encoding="utf-8")))
    project = root / "pyproject.toml"
    before = project.read_text(encoding="utf-8")
    own = "".join(f'    "{pin.text}",\n' for pin in resolve(requirements(before)))
    after = {
        root / "pins.toml.jinja": project_pins(wanted, resolve(wanted)),
        project: _OWN_PINS.sub(lambda _: own, before),
    }
    changes = []
    for path, text in after.items():
        old, new = (set(re.findall(r'"(.+==.+)"', content)) for content in (path.read_text(encoding="utf-8"), text))
        changes += [f"- {pin}" for pin in sorted(old - new)] + [f"+ {pin}" for pin in sorted(new - old)]
        path.write_text(text, encoding="utf-8")
    return changes


def main() -> None:
    """Refresh the pins; end with the result of the checks and the tests where something changed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--no-tests", action="store_true", help="write the pins only")
    parser.add_argument("--report", type=Path, help="write what changed and what failed to this file, too")
    options = parser.parse_args()
    changes = refresh(ROOT)
    print("\n".join(changes) or "All pins are the newest that the bounds allow.")
    failure = attempt(["make", "check", "test"], ROOT) if changes and not options.no_tests else None
    if options.report:
        listed = [f"- `{change}`" for change in changes]
        options.report.write_text(report([failure] if failure else [], "Pins that changed:", listed), encoding="utf-8")
    sys.exit(bool(failure))


if __name__ == "__main__":
    main()
