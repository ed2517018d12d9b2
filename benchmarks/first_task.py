"""From an empty folder to the first finished task."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
from demo import free_ports

from benchmarks.context import Context, Failed
from benchmarks.environments import copy
from benchmarks.parts import Metric, Part
from benchmarks.processes import running
from benchmarks.results import Result
from forge_template import clone_working_tree, project_environment

_WHAT = """\
Wall time of what README.md tells a newcomer to do: `copier copy` with default answers, `uv sync` with the packages in uv's cache,
`make dev` until `GET /ready` answers 200 (API, worker, beat, Flower, Valkey and PostgreSQL run), and `POST /process` until its
task has finished."""
_TOTAL = "in all"
_LIMIT = 120.0


def _run(context: Context) -> Result:
    result = Result.new("first_task", quick=context.quick)
    for turn in range(context.turns(3)):
        folder = context.scratch / f"turn-{turn}"
        folder.mkdir()
        template = clone_working_tree(folder / "template")
        took: dict[str, float] = {}
        _from_empty_folder(template, folder / "project", took)
        for step, seconds in {**took, _TOTAL: sum(took.values())}.items():
            result.add("", step, "seconds", seconds)
            context.say(f"  {step}: {seconds:.1f} s")
    return result


def _from_empty_folder(template: Path, project: Path, took: dict[str, float]) -> None:
    with _timed(took, "copier copy"):
        copy(template, project)
    with _timed(took, "uv sync"):
        command = ["uv", "sync", "--quiet", "--python", sys.executable]
        subprocess.run(command, cwd=project, env=project_environment(), check=True)
    port, flower, mail = free_ports(3)
    variables = {"PORT": str(port), "FLOWER_PORT": str(flower), "DEV_SERVERS": "embedded", "DEV_MAIL": "0"}
    variables |= {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": str(mail)}
    python = str(project / ".venv" / "bin" / "python")
    environment = project_environment(variables)
    log = project.with_name("dev")
    base = f"http://127.0.0.1:{port}"
    with (
        running([[python, "-m", "devtools.dev"]], project, environment, log) as processes,
        processes.stopped_at_the_end(),
        httpx.Client(base_url=base, timeout=60, trust_env=False) as client,
    ):
        with _timed(took, "make dev until ready"):
            deadline = time.monotonic() + _LIMIT
            while not _is_ready(client):
                processes.require_alive()
                if time.monotonic() > deadline:
                    raise Failed(f"the project is not ready after {_LIMIT:.0f} s")
                time.sleep(0.05)
        with _timed(took, "POST /process"):
            answer = client.post("/process", json={"answer": 42})
            if answer.status_code != 200 or answer.json()["status"] != "completed":
                raise Failed(f"POST /process answered {answer.status_code}: {answer.text}")


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:  # nothing listens yet
        return False


@contextmanager
def _timed(took: dict[str, float], step: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    took[step] = time.monotonic() - start


_METRICS = (Metric("seconds", "s"),)
PART = Part("first_task", "From an empty folder to the first finished task", _WHAT, _METRICS, _TOTAL, _run, rows="step")
