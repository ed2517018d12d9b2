"""The processes of a worker: their CPU time, memory and end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.context import Failed


@dataclass(frozen=True)
class Memory:
    """Megabytes of all processes."""

    rss: float
    """Resident memory; what processes share counts for each of them."""
    pss: float
    """What processes share is divided between them; 0 where the system does not report it."""


class Processes:
    """Worker processes with all their descendants."""

    def __init__(self, started: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> None:
        self._started = started
        self._logs = logs

    def require_alive(self) -> None:
        """Raise Failed with the end of its log if a process ended."""
        for process, log in zip(self._started, self._logs, strict=True):
            if process.poll() is not None:
                text = log.read_text(encoding="utf-8", errors="replace")[-3000:]
                raise Failed(f"{process.args!r} ended with {process.returncode}:\n{text}")

    def cpu(self) -> float:
        """Return the CPU seconds of all processes, and of those that have ended and been waited for."""
        total = 0.0
        for one in self._tree():
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory(self) -> Memory:
        """Return the memory of all processes."""
        rss = pss = 0.0
        for one in self._tree():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found = one.memory_full_info()
                rss += found.rss / 2**20
                pss += getattr(found, "pss", 0) / 2**20
        return Memory(rss, pss)

    def kill(self) -> None:
        """End all processes at once; what they would still do no longer counts."""
        tree = self._tree()
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for one in tree:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        for process in self._started:
            process.wait()
        psutil.wait_procs(tree, timeout=10)

    @contextmanager
    def stopped_at_the_end(self) -> Iterator[None]:
        """End all processes as Ctrl-C does at the end of the block: servers that they started end with them."""
        try:
            yield
        finally:
            self._interrupt()

    def _interrupt(self) -> None:
        tree = self._tree()
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        psutil.wait_procs(tree, timeout=30)

    def _tree(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in self._started:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                found += [root, *root.children(recursive=True)]
        return found


@contextmanager
def running(
    commands: Sequence[Sequence[str]], folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[Processes]:
    """Run commands until the end of the block, with their output in files beside `log`."""
    started: list[subprocess.Popen[bytes]] = []
    logs = [log.with_suffix(f".{number}.log") for number in range(len(commands))]
    processes = Processes(started, logs)
    try:
        for command, path in zip(commands, logs, strict=True):
            with path.open("wb") as output:
                started.append(
                    subprocess.Popen(
                        command,
                        cwd=folder,
                        env=dict(environment),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        yield processes
    finally:
        processes.kill()
