"""`async def` tasks of the generated project beside `asyncio.run` in each task."""

from __future__ import annotations

from benchmarks import throughput
from benchmarks.context import Context
from benchmarks.environments import environment
from benchmarks.parts import Metric, Part
from benchmarks.results import Result
from benchmarks.server import running_server
from benchmarks.systems import forge

_WHAT = """\
Both are tasks of the same generated project and worker, with `ignore_result`.

- **One SELECT** on PostgreSQL, prefork 2: an `async def` task on the process's event loop and its pooled engine; beside it a `def`
  task that calls `asyncio.run` and creates an engine, as most tutorials do.
- **Waiting 100 ms** in `asyncio.sleep`, as for an answer from the network, in one worker: `async def` on prefork 1 and on four
  threads; beside them a `def` task that calls `asyncio.run` on prefork 1."""
_SELECT, _WAIT = "one SELECT, prefork 2", "waiting 100 ms, one worker"
_BASELINE = "asyncio.run in the task"
_PREFORK, _THREADS = "async def", "async def, threads 4"

_SYSTEMS = (
    (_SELECT, forge("select-alone", _BASELINE, "select_alone", "prefork", backlog=1_000)),
    (_SELECT, forge("select", _PREFORK, "select", "prefork", backlog=6_000)),
    (_WAIT, forge("wait-alone", _BASELINE, "wait_alone", "prefork", concurrency=1, backlog=120)),
    (_WAIT, forge("wait", _PREFORK, "wait", "prefork", concurrency=1, backlog=2_000)),
    (_WAIT, forge("wait-threads", _THREADS, "wait", "threads", concurrency=4, backlog=2_000)),
)


def _run(context: Context) -> Result:
    result = Result.new("async_database", quick=context.quick)
    project = environment("project")
    result.versions = {name: project.version(name) for name in ("celery", "sqlalchemy", "asyncpg")}
    with running_server(context, project, postgres=True) as server:
        backlogs = {system.name: throughput.fill(context, server, system) for _, system in _SYSTEMS}
        for turn in range(context.turns(3)):
            for case, system in _SYSTEMS if turn % 2 == 0 else reversed(_SYSTEMS):
                found = throughput.measure(context, server, system, backlogs[system.name])
                result.add(case, system.title, "rate", found.rate)
                result.add(case, system.title, "cpu", found.cpu)
                context.say(f"  {system.name}: {found.rate:,.0f} tasks/s, {found.cpu:.2f} ms CPU")
    return result


_METRICS = (Metric("rate", "tasks/s", ratio=True), Metric("cpu", "CPU, ms/task", 2))
PART = Part("async_database", "Async tasks and the database", _WHAT, _METRICS, _BASELINE, _run)
