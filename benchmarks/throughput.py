"""Tasks per second of a worker on a filled queue."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks import marks, stats
from benchmarks.context import Context, Failed
from benchmarks.environments import environment
from benchmarks.processes import Memory, running
from benchmarks.server import Server, Snapshot
from benchmarks.systems import System

_START_LIMIT = 60.0
# Seconds after the first task that do not count: other processes of the worker start and connect meanwhile.
_WARM_UP, _QUICK_WARM_UP = 1.5, 0.5
_MEASURED, _QUICK_MEASURED = 6.0, 2.0
_QUICK_SHARE = 6


@dataclass(frozen=True)
class Throughput:
    """What one run of a worker showed."""

    rate: float
    cpu: float
    """Milliseconds of CPU time per task, of all processes of the worker."""
    memory: Memory


def fill(context: Context, server: Server, system: System) -> tuple[Snapshot, int]:
    """Publish a system's tasks once with its own API; each run starts from the same keys."""
    count = system.backlog // (_QUICK_SHARE if context.quick else 1)
    server.flush()
    system.publish(server, "bulk", count)
    return server.snapshot(), count


def measure(context: Context, server: Server, system: System, backlog: tuple[Snapshot, int]) -> Throughput:
    """Start the worker on a filled queue and measure until all tasks have run, or for some seconds after the warm-up."""
    snapshot, count = backlog
    server.restore(snapshot)
    place = environment(system.environment)
    commands = [(str(place.python), *command) for command in system.commands]
    warm_up, measured = (_QUICK_WARM_UP, _QUICK_MEASURED) if context.quick else (_WARM_UP, _MEASURED)
    with running(commands, place.folder, system.env(server), context.scratch / system.name) as processes:
        marks.require(server.marks, 1, _START_LIMIT, processes, f"{system.name} starts")
        time.sleep(warm_up)
        before, cpu_before = marks.count(server.marks), processes.cpu()
        marks.wait_for(server.marks, count, measured, processes)
        cpu, after = processes.cpu() - cpu_before, marks.count(server.marks)
        memory = processes.memory()
    try:
        rate = stats.rate([one.started for one in marks.read(server.marks)], warm_up)
    except ValueError as error:
        raise Failed(f"{system.name}, {count} tasks: {error}") from error
    return Throughput(rate, 1000 * cpu / max(1, after - before), memory)
