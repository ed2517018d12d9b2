"""Requests per second and lag of the event loop of an `async def` route that queues a task."""

from __future__ import annotations

import socket
import time

from benchmarks import latency, load
from benchmarks.context import Context, Failed
from benchmarks.environments import environment
from benchmarks.parts import Metric, Part
from benchmarks.processes import Processes, running
from benchmarks.resp import Client
from benchmarks.results import Result
from benchmarks.server import running_server
from forge_template import project_environment

_WHAT = """\
One uvicorn process with the generated project's API and 16 clients on the same machine, each with one connection. A route queues a
task with `ignore_result` and no worker runs. The lag is by how much a coroutine that sleeps 2 ms wakes up too late: what every
other request waits for. `enqueue_many` queues 100 tasks in a request."""
_BASELINE = ".delay()"
# Also in project/api.py.
_MANY = 100
_ROUTES = {"delay": _BASELINE, "enqueue": "await enqueue()", "enqueue_many": f"await enqueue_many() of {_MANY}"}
_CLIENTS = 16


def _run(context: Context) -> Result:
    result = Result.new("publishing", quick=context.quick)
    project = environment("project")
    result.versions = {name: project.version(name) for name in ("celery", "fastapi", "uvicorn")}
    with running_server(context, project, postgres=True) as server:
        port = _free_port()
        command = [str(project.python), "-m", "uvicorn", "benchmarks.project.api:app", "--port", str(port)]
        variables = project_environment({**server.variables, "LOG_FORMAT": "json"})
        options = ["--host", "127.0.0.1", "--no-access-log"]
        with running([[*command, *options]], project.folder, variables, context.scratch / "api") as api:
            _wait_until_listening(port, api)
            load.post(port, "/bench/lags")
            routes = {path: title for path, title in _ROUTES.items() if _exists(port, path)}
            for turn in range(context.turns(5)):
                for path in routes if turn % 2 == 0 else reversed(routes):
                    rate, lags = _measure(port, path, 2 if context.quick else 4)
                    tasks = rate * (_MANY if path == "enqueue_many" else 1)
                    figures = {"rate": rate, "tasks": tasks, "p50": latency.p50(lags), "p99": latency.p99(lags)}
                    for name, value in figures.items():
                        result.add("", routes[path], name, value)
                    context.say(f"  {routes[path]}: {rate:,.0f} requests/s, lag {figures['p50']:.1f} ms")
                    with Client(server.port) as client:
                        client("FLUSHALL")
    return result


def _measure(port: int, path: str, seconds: float) -> tuple[float, list[float]]:
    # Connections to Redis and threads are made meanwhile.
    load.requests_per_second(port, f"/bench/{path}", _CLIENTS, 0.5)
    load.post(port, "/bench/lags")
    rate = load.requests_per_second(port, f"/bench/{path}", _CLIENTS, seconds)
    return rate, load.post(port, "/bench/lags")


def _exists(port: int, path: str) -> bool:
    return f"/bench/{path}" in load.post(port, "/bench/routes")


def _wait_until_listening(port: int, api: Processes) -> None:
    deadline = time.monotonic() + 60
    while True:
        api.require_alive()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise Failed("the API does not listen after 60 s") from None
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_METRICS = (
    Metric("rate", "requests/s", ratio=True),
    Metric("tasks", "tasks/s", ratio=True),
    Metric("p50", "lag p50, ms", ratio=True),
    Metric("p99", "lag p99, ms"),
)
PART = Part("publishing", "Publishing from a route", _WHAT, _METRICS, _BASELINE, _run)
