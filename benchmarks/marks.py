"""The file that measured tasks append to; see peers/mark.py."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.context import Failed
from benchmarks.processes import Processes

# As in peers/mark.py, which needs the environment of a task.
_RECORD = struct.Struct("dd")
_POLL = 0.02


@dataclass(frozen=True)
class Mark:
    """One run of a task."""

    sent: float
    started: float


def count(path: Path) -> int:
    """Return how many tasks have run."""
    return path.stat().st_size // _RECORD.size


def read(path: Path) -> list[Mark]:
    """Return all runs, in the order in which they started."""
    content = path.read_bytes()
    whole = len(content) // _RECORD.size * _RECORD.size
    found = [Mark(*fields) for fields in _RECORD.iter_unpack(content[:whole])]
    return sorted(found, key=lambda mark: mark.started)


def clear(path: Path) -> None:
    """Forget all runs; tasks go on appending to the file."""
    with path.open("r+b") as file:
        file.truncate(0)


def wait_for(path: Path, wanted: int, limit: float, processes: Processes) -> int:
    """Return how many tasks have run, once they are `wanted` or `limit` seconds are over.

    Raises:
        Failed: a process of the worker ended.
    """
    deadline = time.monotonic() + limit
    while True:
        done = count(path)
        if done >= wanted or time.monotonic() >= deadline:
            return done
        processes.require_alive()
        time.sleep(_POLL)


def require(path: Path, wanted: int, limit: float, processes: Processes, what: str) -> None:
    """Return once `wanted` tasks have run.

    Raises:
        Failed: they have not after `limit` seconds.
    """
    done = wait_for(path, wanted, limit, processes)
    if done < wanted:
        raise Failed(f"{what}: {done} of {wanted} tasks have run after {limit:.0f} s")
