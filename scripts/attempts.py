"""Run commands that may fail, and report what did as Markdown."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forge_template import project_environment

TAIL = 15_000
"""Characters of a failed command's output that are kept: an issue has room for 65,536 in total."""


@dataclass(frozen=True)
class Failure:
    """A command that failed, and the end of its output."""

    command: str
    output: str


def attempt(command: Sequence[str], folder: Path) -> Failure | None:
    """Run a command and pass its output on; return how it failed, if it did."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=project_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    with process:
        if process.stdout is None:
            raise RuntimeError("the command was started without a pipe")
        lines = []
        for line in process.stdout:
            sys.stderr.write(line)
            lines.append(line)
    return Failure(" ".join(command), "".join(lines)[-TAIL:]) if process.returncode else None


def report(failures: Sequence[Failure], title: str, changes: Sequence[str]) -> str:
    """Return what failed, and what had changed, as Markdown."""
    parts = []
    for failure in failures:
        # Longer than any fence in the output.
        fence = "`" * max([3, *(len(found) + 1 for found in re.findall("`+", failure.output))])
        parts.append(f"`{failure.command}` failed:\n\n{fence}text\n{failure.output.rstrip()}\n{fence}\n")
    listed = "\n".join(changes) or "Nothing."
    parts.append(f"{title}\n\n{listed}\n")
    return "\n".join(parts)
