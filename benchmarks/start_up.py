"""What worker, beat and API take until they are ready, beside a bare Celery and a bare FastAPI application."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.context import Context, Failed
from benchmarks.environments import environment
from benchmarks.parts import Metric, Part
from benchmarks.processes import Processes, running
from benchmarks.results import Result
from benchmarks.server import running_server
from forge_template import project_environment

_WHAT = """\
CPU time of each process until it says that it is ready, and its resident memory then. The bare ones are applications without
settings, with one task or one route, in the same virtual environment. Workers run in the solo pool, which is one process. The aim is a
ratio of 1.25."""
_BASELINE = "bare"
_FORGE = "Forge"
_WORKER = ("worker", "-P", "solo", "--loglevel=info", "-Q")
_API = ("--host", "127.0.0.1", "--port", "0")
_LIMIT = 60.0
# What is started: case, system, arguments of Python, what its log says when it is ready.
_STARTS = (
    ("worker", _BASELINE, ("celery", "-A", "benchmarks.peers.celery_app:app", *_WORKER, "celery"), " ready."),
    ("worker", _FORGE, ("celery", "-A", "app.core.celery:celery_app", *_WORKER, "high,default"), " ready."),
    ("beat", _BASELINE, ("celery", "-A", "benchmarks.peers.celery_app:app", "beat", "--loglevel=info"), "Starting"),
    ("beat", _FORGE, ("celery", "-A", "app.core.celery:celery_app", "beat", "--loglevel=info"), "Starting"),
    ("API", _BASELINE, ("uvicorn", "benchmarks.project.bare_api:app", *_API), "Uvicorn running"),
    ("API", _FORGE, ("uvicorn", "app.main:app", *_API), "Uvicorn running"),
)


def _run(context: Context) -> Result:
    result = Result.new("start_up", quick=context.quick)
    project = environment("project")
    result.versions = {name: project.version(name) for name in ("celery", "fastapi", "pydantic", "sqlalchemy")}
    with running_server(context, project, postgres=True) as server:
        # The first round is not counted: Python compiles modules in it.
        for turn in range(context.turns(3) + 1):
            for number, (case, system, arguments, ready) in enumerate(_STARTS):
                server.flush()
                log = context.scratch / f"{turn}-{number}"
                more = ("--schedule", str(log.with_suffix(".schedule"))) if case == "beat" else ()
                command = [str(project.python), "-m", *arguments, *more]
                variables = project_environment({**server.variables, "LOG_FORMAT": "json"})
                with running([command], project.folder, variables, log) as processes:
                    _wait_for(ready, log.with_suffix(".0.log"), processes)
                    cpu, memory = processes.cpu(), processes.memory().rss
                if turn:
                    result.add(case, system, "cpu", cpu)
                    result.add(case, system, "rss", memory)
                    context.say(f"  {case}, {system}: {cpu:.2f} s CPU, {memory:.0f} MB")
    return result


def _wait_for(text: str, log: Path, processes: Processes) -> None:
    deadline = time.monotonic() + _LIMIT
    while text not in log.read_text(encoding="utf-8", errors="replace"):
        processes.require_alive()
        if time.monotonic() > deadline:
            raise Failed(f"{log.name} does not say {text!r} after {_LIMIT:.0f} s:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.02)


_METRICS = (Metric("cpu", "CPU, s", 2, ratio=True), Metric("rss", "RSS, MB", 0, ratio=True))
PART = Part("start_up", "Starting", _WHAT, _METRICS, _BASELINE, _run)
