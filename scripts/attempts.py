"""Run commands that may fail, and report what did as Markdown."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from forge_template import project_environment

# Less than the 60 minutes of a workflow's job, which reports the failure.
LIMIT = 50 * 60.0
TAIL = 15_000
"""Characters of a failed command's output that are kept: an issue has room for 65,536 in total."""


@dataclass(frozen=True)
class Failure:
    """A command that failed, and the end of its output."""

    command: str
    output: str


def attempt(command: Sequence[str], folder: Path) -> Failure | None:
    """Run a command, pass its output on and kill what it leaves running; return how it failed, if it did."""
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
        start_new_session=True,
    )
    lines: list[str] = []
    # In a thread: a server that a failed test leaves running keeps the pipe open.
    reader = threading.Thread(target=_pass_on, args=[process.stdout, lines], daemon=True)
    reader.start()
    end = ""
    try:
        process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        end = f"Killed after {LIMIT:.0f} s.\n"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    reader.join(10)
    return Failure(" ".join(command), ("".join(lines) + end)[-TAIL:]) if process.wait() else None


def _pass_on(output: IO[str], lines: list[str]) -> None:
    with output:
        for line in output:
            sys.stderr.write(line)
            lines.append(line)


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
