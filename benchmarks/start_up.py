"""What worker, beat and API take until they are ready, beside a bare Celery and a bare FastAPI application."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.context import Context, Failed
from benchmarks.environments import environment
from benchmarks.parts import Metric, Part
from benchmarks.processes import Processes, running
from benchmarks.results import Result
from benchmarks.server import Server, running_server
from forge_template import project_environment

_WHAT = """\
CPU time of each process until it says that it is ready, and its resident memory then, with modules compiled. *Bare* is what the
first page of Celery's and FastAPI's documentation has: one task or one route, in an environment with nothing else for Celery
(an installed Flower is imported by each `celery` command). *The same libraries* is what most projects write: it imports what the
generated project uses at the top of its modules, but has one task or one route. *Worker* is the solo pool, one process; *prefork* a
worker with four processes, whose memory is PSS: what they share counts once. A generated worker imports what its tasks need
before it forks, so that it is in memory once; the bare one has no tasks that need anything."""
_BASELINE = "bare"
_USUAL = "the same libraries"
_FORGE = "Forge"
_WORKER = ("worker", "-P", "solo", "--loglevel=info", "-Q")
_PREFORK = ("worker", "-P", "prefork", "-c", "4", "--loglevel=info", "-Q")
_BEAT = ("beat", "--loglevel=info")
_API = ("--host", "127.0.0.1", "--port", "0")
_LIMIT = 60.0
_BARE_CELERY = ("celery", "-A", "benchmarks.peers.celery_app:app")
_USUAL_CELERY = ("celery", "-A", "benchmarks.project.usual_celery:app")
_FORGE_CELERY = ("app.worker",)


class _Start(NamedTuple):
    case: str
    system: str
    environment: str
    arguments: tuple[str, ...]
    ready: str
    """What the log contains when it is ready."""


_STARTS = (
    _Start("worker", _BASELINE, "peers", (*_BARE_CELERY, *_WORKER, "celery"), " ready."),
    _Start("worker", _USUAL, "project", (*_USUAL_CELERY, *_WORKER, "celery"), " ready."),
    _Start("worker", _FORGE, "project", (*_FORGE_CELERY, *_WORKER, "high,default"), " ready."),
    _Start("prefork", _BASELINE, "peers", (*_BARE_CELERY, *_PREFORK, "celery"), " ready."),
    _Start("prefork", _USUAL, "project", (*_USUAL_CELERY, *_PREFORK, "celery"), " ready."),
    _Start("prefork", _FORGE, "project", (*_FORGE_CELERY, *_PREFORK, "high,default"), " ready."),
    _Start("beat", _BASELINE, "peers", (*_BARE_CELERY, *_BEAT), "Starting"),
    _Start("beat", _USUAL, "project", (*_USUAL_CELERY, *_BEAT), "Starting"),
    _Start("beat", _FORGE, "project", (*_FORGE_CELERY, *_BEAT), "Starting"),
    _Start("API", _BASELINE, "project", ("uvicorn", "benchmarks.project.bare_api:app", *_API), "Uvicorn running"),
    _Start("API", _USUAL, "project", ("uvicorn", "benchmarks.project.usual_api:app", *_API), "Uvicorn running"),
    _Start("API", _FORGE, "project", ("uvicorn", "app.main:app", *_API), "Uvicorn running"),
)


def _run(context: Context) -> Result:
    result = Result.new("start_up", quick=context.quick)
    project = environment("project")
    result.versions = {name: project.version(name) for name in ("celery", "fastapi", "pydantic", "sqlalchemy")}
    with running_server(context, project, postgres=True) as server:
        # The first round is not counted: Python compiles modules in it.
        for turn in range(context.turns(3) + 1):
            for number, start in enumerate(_STARTS):
                server.flush()
                cpu, memory = _measure(start, project.folder, server, context.scratch / f"{turn}-{number}")
                if turn:
                    result.add(start.case, start.system, "cpu", cpu)
                    result.add(start.case, start.system, "memory", memory)
                    context.say(f"  {start.case}, {start.system}: {cpu:.2f} s CPU, {memory:.0f} MB")
    return result


def _measure(start: _Start, folder: Path, server: Server, log: Path) -> tuple[float, float]:
    """Return the CPU seconds and the megabytes of processes that have just become ready."""
    schedule = ("--schedule", str(log.with_suffix(".schedule"))) if start.case == "beat" else ()
    command = [str(environment(start.environment).python), "-m", *start.arguments, *schedule]
    variables = project_environment({**server.variables, "LOG_FORMAT": "json"})
    # Without compiled modules, a start would mostly measure the compiler.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    with running([command], folder, variables, log) as processes:
        _wait_for(start.ready, log.with_suffix(".0.log"), processes)
        memory = processes.memory()
        # Of one process, all that it has: its neighbours may have the same libraries loaded.
        return processes.cpu(), memory.pss if start.case == "prefork" else memory.rss


def _wait_for(text: str, log: Path, processes: Processes) -> None:
    deadline = time.monotonic() + _LIMIT
    while text not in log.read_text(encoding="utf-8", errors="replace"):
        processes.require_alive()
        if time.monotonic() > deadline:
            raise Failed(f"{log.name} does not say {text!r} after {_LIMIT:.0f} s:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.02)


_METRICS = (Metric("cpu", "CPU, s", 2, ratio=True), Metric("memory", "memory, MB", 0, ratio=True))
PART = Part("start_up", "Starting", _WHAT, _METRICS, _BASELINE, _run)
