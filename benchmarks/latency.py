"""The time from the call that publishes a task to the first line of the task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import marks, stats
from benchmarks.context import Context, Failed
from benchmarks.environments import environment
from benchmarks.processes import Processes, running
from benchmarks.server import Server
from benchmarks.systems import System

_START_LIMIT = 60.0
_WARM_UP = 40
# The publisher's own, which carry no time.
_FIRST = 5


@contextmanager
def ready_worker(context: Context, server: Server, system: System) -> Iterator[Processes]:
    """Run a worker on an empty queue; the block starts when every process has run tasks."""
    server.flush()
    place = environment(system.environment)
    commands = [(str(place.python), *command) for command in system.commands]
    with running(commands, place.folder, system.env(server), context.scratch / system.name) as processes:
        system.publish(server, "bulk", _WARM_UP)
        marks.require(server.marks, _WARM_UP, _START_LIMIT, processes, f"{system.name} starts")
        yield processes


def measure(
    server: Server, system: System, processes: Processes, rate: float, seconds: float
) -> tuple[list[float], float]:
    """Publish at a rate; return the latency of each task in milliseconds, and the rate that the publisher reached."""
    marks.clear(server.marks)
    reached = system.publish(server, "paced", rate, seconds)
    marks.wait_for(server.marks, _FIRST + max(1, int(rate * seconds)), 15, processes)
    found = [1000 * (one.started - one.sent) for one in marks.read(server.marks) if one.sent]
    if not found:
        raise Failed(f"{system.name}: no task ran at {rate:.0f}/s")
    return found, reached


def p50(values: list[float]) -> float:
    """Return the median."""
    return stats.percentile(values, 0.5)


def p99(values: list[float]) -> float:
    """Return what 99 of 100 do not exceed."""
    return stats.percentile(values, 0.99)
