"""The workers that are compared: their processes, and how their tasks are published."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.context import Context, Failed
from benchmarks.environments import environment
from benchmarks.server import Server
from forge_template import project_environment

CELERY_DEFAULTS = "celery-defaults"


@dataclass(frozen=True)
class System:
    """A worker of one or more processes."""

    name: str
    title: str
    environment: str
    commands: tuple[tuple[str, ...], ...]
    """Arguments of its environment's Python, one worker each."""
    publisher: str
    """A module for peers/publisher.py."""
    backlog: int = 30_000
    """How many tasks wait when it starts: a few seconds of work."""
    variables: dict[str, str] = field(default_factory=dict)

    def env(self, server: Server) -> dict[str, str]:
        """Return the environment variables of its programs."""
        # As in production: a line of JSON per log entry.
        return project_environment({**server.variables, "LOG_FORMAT": "json", **self.variables})

    def publish(self, server: Server, how: str, *figures: float) -> float:
        """Publish with its own API and return the rate that was reached, for tasks that are published at a rate."""
        place = environment(self.environment)
        publisher = ["-m", "benchmarks.peers.publisher", self.publisher, how, *map(str, figures)]
        command = [str(place.python), *publisher]
        done = subprocess.run(
            command, cwd=place.folder, env=self.env(server), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"publishing to {self.name} failed:\n{done.stdout}{done.stderr}")
        return float(json.loads(done.stdout.splitlines()[-1]))


def forge(
    name: str, title: str, task: str, pool: str, *, workers: int = 1, concurrency: int = 2, backlog: int
) -> System:
    """Return a system of the generated project, started as in its compose file, but without events: no system has them."""
    options = ("--loglevel=info", "-Q", "high,default", "-P", pool, f"--concurrency={concurrency}")
    application = ("-m", "celery", "-A", "app.core.celery:celery_app", "worker", "-I", "benchmarks.project.tasks")
    commands = tuple((*application, *options, "-n", f"bench{number}@%h") for number in range(workers))
    return System(name, title, "project", commands, "benchmarks.project.tasks", backlog, {"BENCHMARK_TASK": task})


_CELERY = ("-m", "celery", "-A", "benchmarks.peers.celery_app:app", "worker", "--loglevel=info", "--concurrency=2")
_DRAMATIQ = ("-m", "dramatiq", "benchmarks.peers.dramatiq_app", "-p", "2", "-t", "8")
_TASKIQ = ("-m", "taskiq", "worker", "benchmarks.peers.taskiq_app:broker", "-w", "2")
_ARQ = ("-m", "arq", "benchmarks.peers.arq_app.WorkerSettings")
_HUEY = ("-m", "huey.bin.huey_consumer", "benchmarks.peers.huey_app.huey", "-w", "2", "-k", "process")
_RQ = ("-m", "rq.cli", "worker")

WORKERS = (
    System(CELERY_DEFAULTS, "Celery, defaults, prefork 2", "peers", (_CELERY,), "benchmarks.peers.celery_app", 8_000),
    forge("forge-prefork", "Forge, prefork 2, results and STARTED", "stored", "prefork", backlog=8_000),
    forge("forge-prefork-ignore", "Forge, prefork 2, ignore_result", "ignored", "prefork", backlog=20_000),
    forge(
        "forge-threads",
        "Forge, two workers of 4 threads, ignore_result",
        "ignored",
        "threads",
        workers=2,
        concurrency=4,
        backlog=30_000,
    ),
    System("dramatiq", "dramatiq, -p 2 -t 8", "peers", (_DRAMATIQ,), "benchmarks.peers.dramatiq_app"),
    System("taskiq", "taskiq, Redis list, -w 2", "peers", (_TASKIQ,), "benchmarks.peers.taskiq_app"),
    System(
        "taskiq-results",
        "taskiq, Redis list, -w 2, results",
        "peers",
        (_TASKIQ,),
        "benchmarks.peers.taskiq_app",
        variables={"BENCHMARK_TASK": "stored"},
    ),
    System("huey", "huey, 2 processes", "peers", (_HUEY,), "benchmarks.peers.huey_app", 20_000),
    System("arq", "arq, 2 processes", "arq", (_ARQ, _ARQ), "benchmarks.peers.arq_app", 8_000),
    System("rq", "rq, 2 processes", "peers", (_RQ, _RQ), "benchmarks.peers.rq_app", 3_000),
)
QUICK = frozenset({"forge-prefork-ignore", "forge-threads", "dramatiq"})


def chosen(context: Context, systems: Iterable[System], baseline: str, quick: frozenset[str]) -> list[System]:
    """Return the systems to measure: those that were asked for, or a few if quick, always with the baseline."""
    known = {one.name: one for one in systems}
    wanted = context.systems & known.keys() or (quick if context.quick else frozenset(known))
    return [one for one in known.values() if one.name in wanted or one.name == baseline]
