"""Do the same faults while clients queue and read tasks through the API, and judge the records: `make chaos ARGS=records`.

No task may be lost or stuck, each must be in GET /tasks exactly once with the state in which it ended, and no final state may ever be
followed by another. The latency of the API is measured without faults first, then outside of the time in which Redis is down.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx

from benchmarks.environments import Environment, project
from benchmarks.resp import Client
from forge_template import project_environment
from tests.generated.chaos.processes import Chaos, Failed, Fault, until
from tests.generated.life import free_port

CLIENTS = 50
TASKS = 10_000
FAULTS = ("child", "worker", "freeze", "restart", "redis", "cut")
_PAUSE = 0.5
"""Seconds between two requests of a client: a queue of requests would be what is measured."""

_RECOVERY = 3.0
"""Seconds after a fault of Redis that belong to it: clients connect again."""

_FINAL = {"SUCCESS", "FAILURE", "REVOKED"}


def expected(number: int) -> str:
    """Return the state in which a task ends; `chaos_probe.submitted` does as this says."""
    return "FAILURE" if number % 10 == 3 else "SUCCESS"


class _Over(Exception):
    """The clients have queued all tasks."""


@dataclass
class Load:
    """What the clients did and saw. Times are of the monotonic clock."""

    tasks: dict[str, int] = field(default_factory=dict)
    """The number of each task, by its id."""
    requests: list[tuple[float, float]] = field(default_factory=list)
    """When each answered request began and ended."""
    statuses: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    ended: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The state and the end of each task that a client saw ended."""
    changed: list[str] = field(default_factory=list)
    """Tasks that were seen with another end before."""

    def see(self, task: dict[str, Any]) -> None:
        """Compare a task with what was seen of it before."""
        end = (task["state"], task["finished_at"])
        before = self.ended.get(task["task_id"])
        if before and end != before:
            self.changed.append(f"{task['task_id']}: {before}, then {end}")
        if task["state"] in _FINAL:
            self.ended[task["task_id"]] = end


class Clients:
    """Clients of the API, on an event loop in a thread."""

    def __init__(self, url: str, first: int, count: int) -> None:
        self.load = Load()
        self._url, self._numbers = url, iter(range(first, first + count))
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def are_done(self) -> bool:
        """Whether all tasks are queued."""
        return not self._thread.is_alive()

    def wait(self) -> Load:
        """Return what they did when they have queued all tasks."""
        self._thread.join()
        if self._error:
            raise self._error
        return self.load

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except Exception as error:
            self._error = error

    async def _all(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
        async with httpx.AsyncClient(base_url=self._url, limits=limits, timeout=30) as client:
            await asyncio.gather(*(self._one(client, f"user-{number}") for number in range(CLIENTS)))

    async def _one(self, client: httpx.AsyncClient, owner: str) -> None:
        own: list[str] = []
        await asyncio.sleep(random.random() * _PAUSE)
        for number in self._numbers:
            body = {"task": "chaos.submitted", "arguments": {"number": number}}
            headers = {"X-Owner": owner, "Idempotency-Key": str(number)}
            answer = await self._answered(client, "POST", "/tasks", json=body, headers=headers)
            own.append(answer.json()["task_id"])
            self.load.tasks[own[-1]] = number
            await asyncio.sleep(_PAUSE)
            answer = await self._answered(client, "GET", f"/tasks/{random.choice(own[-20:])}")
            self.load.see(answer.json())
            await asyncio.sleep(_PAUSE)

    async def _answered(self, client: httpx.AsyncClient, method: str, path: str, **request: Any) -> httpx.Response:
        end = time.monotonic() + 120
        while True:
            start = time.monotonic()
            try:
                answer = await client.request(method, path, **request)
            except httpx.TransportError:
                # The server closes connections that nobody has used for seconds.
                self.load.cut += 1
                continue
            self.load.statuses[answer.status_code] += 1
            self.load.requests.append((start, time.monotonic()))
            # A task has no record yet if Redis broke off when it was queued; its worker makes one.
            if answer.is_success:
                return answer
            if answer.status_code not in {503, 404} or time.monotonic() > end:
                raise Failed(f"{method} {path}: {answer.status_code} {answer.text}")
            await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Row:
    """What one fault did to the records."""

    fault: str
    times: int
    tasks: int
    lost: int
    stuck: int
    wrong: int
    twice: int
    back: int
    jobs: int
    outside: float
    whole: float
    refused: int

    @property
    def is_sound(self) -> bool:
        """Whether the records are right."""
        return not (self.lost or self.stuck or self.wrong or self.twice or self.back or self.jobs)


HEADINGS = {
    "fault": "fault",
    "times": "times",
    "tasks": "tasks",
    "lost": "lost",
    "stuck": "stuck",
    "wrong": "wrong state",
    "twice": "listed twice",
    "back": "changed end",
    "jobs": "jobs left",
    "outside": "p99 outside, ms",
    "whole": "p99, ms",
    "refused": "503",
}


def shown(row: Row) -> str:
    """Return a line of the table."""
    return "| " + " | ".join(str(getattr(row, name)) for name in HEADINGS) + " |"


class RecordsChaos(Chaos):
    """The faults, under the load of clients of the API."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        super().__init__(environment, "atomic", folder, 1)
        self.clients: Clients | None = None
        self.faulty: list[tuple[float, float]] = []
        """When Redis was down."""
        self._published = 0
        self._environment, self._log = environment, folder / "api.log"
        self.url = f"http://127.0.0.1:{free_port()}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the workers and the API until the end of the block."""
        variables = {
            **self._variables(self._environment, self.redis.port),
            "CELERY_MAX_JOBS_PER_OWNER": "100000",
            "DATABASE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/none",
        }
        port = self.url.rpartition(":")[2]
        command = [
            str(self._environment.python),
            "-m",
            "uvicorn",
            "chaos_api:api",
            "--port",
            port,
            "--timeout-keep-alive",
            "75",
        ]
        with super().running(), self._log.open("ab") as log:
            api = subprocess.Popen(
                command,
                cwd=self._environment.folder,
                env=project_environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                until("the API answers", self._answers)
                yield
            finally:
                api.kill()
                api.wait(20)

    def warm_up(self) -> None:
        """Have every client, the API and the workers do something once."""
        clients = Clients(self.url, -2 * CLIENTS, 2 * CLIENTS)
        clients.wait()
        self._settle()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").is_success
        except httpx.TransportError:
            return False

    def _until_runs(self, count: int, of_worker: int | None = None) -> None:
        """Return when so many more tasks have run.

        Raises:
            _Over: the clients have queued all.
        """
        start = self.marks.count()

        def met() -> bool:
            self._supervise()
            if self.clients is None or self.clients.are_done:
                raise _Over
            done = self.marks.count() - start if of_worker is None else self.marks.of_worker(of_worker, start)
            return done >= count

        until("tasks run", met)

    def _end_redis(self, number: signal.Signals, sync: str) -> None:
        self._until_runs(300)
        with Client(self.redis.port) as client:
            client("CONFIG", "SET", "appendfsync", sync)
        start = time.monotonic()
        self.redis.stop(number)
        self.redis.start()
        self.faulty.append((start, time.monotonic() + _RECOVERY))

    def judge(self, fault: Fault | None, tasks: int) -> Row:
        """Queue tasks while a fault is done again and again, and compare the records with what should be there."""
        self._forget()
        self.faulty = []
        first, self._published = self._published, self._published + tasks
        self.clients = Clients(self.url, first, tasks)
        times = 0
        try:
            for times in itertools.count():
                if fault is None:
                    break
                fault.inject(times)
        except _Over:
            pass
        load = self.clients.wait()
        self._settle()
        listed = self._listed(load)
        refused = load.statuses[503]
        within = [one for one in load.requests if any(one[0] < end and start < one[1] for start, end in self.faulty)]
        outside = set(load.requests) - set(within)
        states = {task["task_id"]: task["state"] for task in listed}
        row = Row(
            fault=fault.name if fault else "none",
            times=times,
            tasks=len(load.tasks),
            lost=len(load.tasks.keys() - states.keys()) + tasks - len(set(load.tasks.values())),
            stuck=sum(state not in _FINAL for state in states.values()),
            wrong=self._wrong(load, states),
            twice=len(listed) - len(states),
            back=len(load.changed),
            jobs=self._jobs(),
            outside=_p99(outside),
            whole=_p99(load.requests),
            refused=refused,
        )
        print(shown(row), flush=True)
        for line in load.changed[:10]:
            print(line, file=sys.stderr)
        return row

    def _listed(self, load: Load) -> list[dict[str, Any]]:
        """Return the whole list, page by page."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = httpx.get(f"{self.url}/tasks", params={"limit": 100, **cursor}, timeout=30).raise_for_status().json()
            found += page["tasks"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        for task in found:
            load.see(task)
        return found

    def _wrong(self, load: Load, states: dict[str, str]) -> int:
        """Return how many tasks have another state than they should have, in their record or their result."""
        wrong = 0
        with Client(self.redis.port, 2) as client:
            for task_id, number in load.tasks.items():
                result = client("GET", f"celery-task-meta-{task_id}") or b""
                state = result.partition(b'"status": "')[2].partition(b'"')[0].decode()
                should = expected(number)
                if (state, states.get(task_id)) != (should, should):
                    wrong += 1
                    print(f"{task_id}: {state} and {states.get(task_id)} instead of {should}", file=sys.stderr)
        return wrong

    def _jobs(self) -> int:
        """Return how many jobs are counted; not those whose publishing was cut off, which count for a minute."""
        with Client(self.redis.port, 2) as client:
            later = int(client("TIME")[0]) + 60
            return sum(client("ZCOUNT", key, later, "+inf") for key in client.scan("*/jobs/*"))

    def _forget(self) -> None:
        with Client(self.redis.port, 2) as client:
            client("FLUSHDB")


def _p99(requests: Any) -> float:
    times = sorted(end - start for start, end in requests)
    return round(1000 * times[int(0.99 * len(times))], 1) if times else 0


def main(arguments: list[str]) -> int:
    """Run the faults; the status is 1 if a record is not what it should be, or the API was slow outside of the faults."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=records", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS, help="tasks for each fault; 10000 take about four minutes")
    parser.add_argument("faults", nargs="*", help=f"{', '.join(FAULTS)}; all if none is named")
    asked = parser.parse_args(arguments)
    scratch = Path(tempfile.mkdtemp(prefix="forge-chaos-"))
    try:
        chaos = RecordsChaos(project(), scratch / "records")
        with chaos.running():
            print("| " + " | ".join(HEADINGS.values()) + " |\n|" + "---|" * len(HEADINGS), flush=True)
            chaos.warm_up()
            idle = chaos.judge(None, asked.tasks)
            faults = chaos.faults()
            rows = [chaos.judge(faults[name], asked.tasks) for name in asked.faults or FAULTS]
    except (Failed, httpx.HTTPError) as error:
        print(f"FAILED: {error!r}; the logs are in {scratch}", file=sys.stderr)
        return 1
    shutil.rmtree(scratch)
    slow = [row.fault for row in rows if row.outside > 5 * idle.outside]
    if slow:
        print(f"p99 of more than 5 times {idle.outside} ms: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow or not all(row.is_sound for row in (idle, *rows)) else 0
