"""The CPU time of one command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.context import Failed


def cpu_seconds(command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str] | None = None) -> float:
    """Run a command; return the user and system time of it and of every process that it waits for.

    Raises:
        Failed: its exit status is not 0.
    """
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            cwd=folder,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise Failed(
            f"{' '.join(command)} in {folder} ended with {started.returncode}:\n{log.read_text(encoding='utf-8')}"
        )
    return usage.ru_utime + usage.ru_stime
