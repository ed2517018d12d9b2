"""Kill and restart the services of a generated project with tasks in flight, and count what was lost and what ran twice.

A lost task has neither run nor failed when nothing is queued or held any more.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import copier
import httpx2 as httpx

from forge_template import clone_working_tree, project_environment
from tests.generated.docker import BUILD_LIMIT, Stack, engine
from tests.generated.life import free_port

ADDED = Path(__file__).parent / "project"
JOURNAL = "/app/data/chaos.journal"
SETTLE_LIMIT = 900.0
"""Seconds; the visibility timeout of 60 s may pass more than once, and the machine may be busy."""

_TABLES = (
    "CREATE TABLE chaos_runs (number int NOT NULL);"
    "CREATE TABLE chaos_claims (number int PRIMARY KEY);"
    "CREATE TABLE chaos_effects (number int NOT NULL);"
)
# Waiting and held messages, at one moment.
_PENDING = (
    "local n = redis.call('hlen', 'unacked') "
    "for _, queue in ipairs({'high', 'default', 'long'}) do for _, key in ipairs(redis.call('keys', queue .. '*')) do "
    "if redis.call('type', key).ok == 'list' then n = n + redis.call('llen', key) end end end return n"
)
# Kills inside of the container, by what a process is: no right on the host is needed.
_KILL = """
import os, pathlib, signal
found = {}
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        command = (folder / "cmdline").read_bytes()
    except OSError:
        continue
    found[int(folder.name)] = parent, command
main = next(pid for pid, (parent, command) in found.items() if parent == 1 and b"COMMAND" in command)
children = sorted(pid for pid, (parent, _) in found.items() if parent == main)
os.kill(children[0] if CHILD else main, signal.SIGKILL)
"""


class Failed(Exception):
    """A service did not come back, or tasks did not come to an end."""


def until(what: str, met: Callable[[], bool], limit: float = SETTLE_LIMIT) -> None:
    """Wait until `met()`.

    Raises:
        Failed: not within `limit` seconds.
    """
    end = time.monotonic() + limit
    while not met():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {limit:.0f} s")
        time.sleep(0.2)


class Publisher:
    """Queues tasks inside of the API's container; knows which of them Redis confirmed."""

    def __init__(self, stack: Stack, first: int, end: int) -> None:
        self.confirmed: set[int] = set()
        self._process = subprocess.Popen(
            ["docker", "compose", "exec", "-T", "api", "python", "-m", "app.chaos_publish", str(first), str(end)],
            cwd=stack.project,
            env=project_environment(stack.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            # A line of JSON is a log's.
            if line.strip().isdigit():
                self.confirmed.add(int(line))

    def wait(self) -> int:
        """Return the exit status when it has ended."""
        status = self._process.wait(timeout=SETTLE_LIMIT)
        self._reader.join(timeout=60)
        return status


@dataclass
class Row:
    """What one fault did."""

    fault: str
    times: int
    tasks: int
    in_flight: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    repeated: int = 0
    twice: int = 0
    seconds: float = 0

    @property
    def sound(self) -> bool:
        """Whether nothing was lost or failed, and no idempotent effect happened twice."""
        return not self.lost and not self.failed and not self.twice


class Chaos:
    """The faults, on one project's services."""

    def __init__(self, stack: Stack, count: int) -> None:
        self.stack = stack
        self.count = count
        self.first = 0
        self.sql(_TABLES)

    def sql(self, statement: str) -> list[str]:
        """Return the lines that a statement gives."""
        return self.stack.inside(
            "postgres", "sh", "-c", f'psql -qAtX -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "{statement}"'
        ).split()

    def redis(self, command: str) -> list[str]:
        """Return the lines that a command of Redis's gives, in the broker's database."""
        return self.stack.inside(
            "redis", "sh", "-c", f'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli -n 1 {command}'
        ).splitlines()

    def done(self) -> int:
        """Return how many different tasks of this round have run."""
        return int(self.sql(f"SELECT count(DISTINCT number) FROM chaos_runs WHERE number >= {self.first}")[0])

    def settle(self) -> None:
        """Wait until nothing is queued or held: several times in a row, as a retry is queued from a thread."""
        empty = 0

        def met() -> bool:
            nonlocal empty
            empty = empty + 1 if self.redis(f'eval "{_PENDING}" 0') == ["0"] else 0
            return empty >= 5

        until("nothing is queued or held", met)

    def healthy(self) -> None:
        """Wait until every service is back, and the application says that it is ready."""

        def met() -> bool:
            states = [one["Health"] for one in self.stack.containers() if one["Service"] != "migrate"]
            if len(states) < 7 or set(states) != {"healthy"}:
                return False
            try:
                return httpx.get(f"{self.stack.address('api', 8000)}/ready", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        until("every service is healthy again", met)

    def kill(self, service: str, command: str, *, child: bool = False) -> None:
        """Kill -9 a service's main process, and its container with it, or that process's first child."""
        code = _KILL.replace("COMMAND", command).replace("CHILD", str(child))
        started = self.started(service)

        def met() -> bool:
            try:
                self.stack.inside(service, "python", "-c", code)
            except AssertionError as error:
                # The container ends with its main process, and this command in it too.
                return (not child and self.started(service) != started) or self._retry(error)
            return True

        until(f"{service} is killed", met, 120)
        if not child:
            until(f"{service} is started again", lambda: self.started(service) not in ("", started), 120)

    def _retry(self, error: AssertionError) -> bool:
        # A worker that just lost a child may have none for a moment.
        if not re.search(r"IndexError|StopIteration|not running|is restarting|137", str(error)):
            raise error
        return False

    def started(self, service: str) -> str:
        """Return when a service's running container was started."""
        container = self.stack.compose("ps", "--all", "--quiet", service).split()[0]
        return self.stack.docker(
            "inspect", "--format", "{{if .State.Running}}{{.State.StartedAt}}{{end}}", container
        ).strip()

    def round(self, fault: str, inject: Callable[[], None], times: int = 1) -> Row:
        """Queue the tasks with the worker paused, let it go, and do the fault at `times` even marks of what is done."""
        row = Row(fault, times, self.count)
        self.stack.compose("pause", "celery_worker")
        try:
            publisher = Publisher(self.stack, self.first, self.first + self.count)
            assert publisher.wait() == 0, "the tasks were not queued"
        finally:
            self.stack.compose("unpause", "celery_worker")
        started = time.monotonic()
        for mark in range(times):
            # The first half of them: the last fault must find some left, however slow it is to get there.
            until("tasks run", lambda mark=mark: self.done() >= self.count * (2 * mark + 1) // (4 * times))  # type: ignore[misc]
            row.in_flight.append(self.count - self.done())
            inject()
        return self.finish(row, publisher.confirmed, started)

    def api_round(self) -> Row:
        """Kill the API while it queues more and more tasks, and queue some when it is back."""
        row = Row("kill -9 the API", 1, self.count)
        started = time.monotonic()
        # More than it has the time for.
        more = 20 * self.count
        publisher = Publisher(self.stack, self.first, self.first + more)
        until("tasks are queued", lambda: len(publisher.confirmed) >= self.count)
        self.kill("api", "uvicorn")
        publisher.wait()
        # The one that was being queued may be there or not: nobody was told that it is.
        row.in_flight.append(len(publisher.confirmed) - self.done())
        assert len(publisher.confirmed) < more, "everything was queued before the API died"
        self.healthy()
        again = Publisher(self.stack, self.first + more, self.first + more + 10)
        assert again.wait() == 0, "the API queues nothing any more"
        row = self.finish(row, publisher.confirmed | again.confirmed, started)
        self.first += more
        return row

    def finish(self, row: Row, confirmed: set[int], started: float) -> Row:
        """Wait for the end of a round, and count."""
        self.healthy()
        self.settle()
        row.seconds = time.monotonic() - started
        row.tasks = len(confirmed)
        runs = Counter(map(int, self.sql(f"SELECT number FROM chaos_runs WHERE number >= {self.first}")))
        effects = Counter(map(int, self.sql(f"SELECT number FROM chaos_effects WHERE number >= {self.first}")))
        row.repeated = runs.total() - len(runs)
        row.twice = effects.total() - len(effects)
        for line in self.stack.inside("celery_worker", "sh", "-c", f"touch {JOURNAL} && cat {JOURNAL}").splitlines():
            task, _, _ = line.partition(" ")
            if int(task.partition("-")[2]) >= self.first:
                row.failed.append(line)
        row.lost = sorted(
            number for number in confirmed if number not in runs or (number % 2 == 1 and number not in effects)
        )
        self.first += self.count
        print(shown(row), flush=True)
        for problem in [*row.failed[:5], *(f"{number} lost" for number in row.lost[:5])]:
            print(f"    {problem}", flush=True)
        return row

    def faults(self) -> dict[str, Callable[[], Row]]:
        """Return every fault by the name that the command line has for it."""
        return {
            "child": lambda: self.round(
                "kill -9 a worker's child", lambda: self.kill("celery_worker", "celery", child=True), 5
            ),
            "worker": lambda: self.round("kill -9 a worker", lambda: self.kill("celery_worker", "celery"), 3),
            "beat": lambda: self.round("kill -9 beat", lambda: self.kill("celery_beat", "celery")),
            "api": self.api_round,
            "redis": lambda: self.round("restart Redis", lambda: self._compose("restart", "redis"), 3),
            "postgres": lambda: self.round("stop PostgreSQL for 10 s", self._without_postgres),
            "down": lambda: self.round("compose down and up", self._down_and_up),
        }

    def _compose(self, *arguments: str) -> None:
        self.stack.compose(*arguments)

    def _without_postgres(self) -> None:
        self.stack.compose("stop", "postgres")
        # The fault itself, not a wait for something.
        time.sleep(10)
        self.stack.compose("start", "postgres")

    def _down_and_up(self) -> None:
        self.stack.compose("down")
        self.stack.compose("up", "--detach", "--wait", limit=SETTLE_LIMIT)


HEADINGS = (
    "fault",
    "times",
    "tasks",
    "in flight",
    "lost",
    "failed",
    "ran twice",
    "effect twice",
    "s",
)


def shown(row: Row) -> str:
    """Return a line of the table."""
    flying = "/".join(map(str, row.in_flight))
    numbers = [len(row.lost), len(row.failed), row.repeated, row.twice, round(row.seconds)]
    return "| " + " | ".join([row.fault, str(row.times), str(row.tasks), flying, *map(str, numbers)]) + " |"


def generate(scratch: Path) -> Path:
    """Render the project, with the tasks that are counted."""
    template = clone_working_tree(scratch / "template")
    project = scratch / "project"
    answers = {"profile": "standard", "use_docker": True}
    copier.run_copy(str(template), project, data=answers, vcs_ref="HEAD", defaults=True, unsafe=True, quiet=True)
    shutil.copytree(ADDED, project, dirs_exist_ok=True)
    return project


def main(arguments: list[str]) -> int:
    """Run the faults; the status is 1 if a task was lost or an idempotent effect happened twice."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=compose", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000, help="how many are in flight at each fault")
    parser.add_argument(
        "faults", nargs="*", help="child, worker, beat, api, redis, postgres, down; all if none is named"
    )
    asked = parser.parse_args(arguments)
    found = engine()
    if found is None:
        print("no Docker engine answers", file=sys.stderr)
        return 2
    name = f"forge-chaos-{os.getpid()}"
    ports = {"API_PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
    scratch = Path(tempfile.mkdtemp(prefix="forge-chaos-"))
    stack = Stack(generate(scratch), {**found, **ports, "IMAGE": name, "COMPOSE_PROJECT_NAME": name})
    rows: list[Row] = []
    try:
        stack.compose("build", limit=BUILD_LIMIT)
        stack.compose("up", "--detach", "--wait", limit=SETTLE_LIMIT)
        chaos = Chaos(stack, asked.tasks)
        faults = chaos.faults()
        for fault in asked.faults or faults:
            rows.append(faults[fault]())
    except (Failed, AssertionError, httpx.HTTPError, subprocess.SubprocessError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        print(stack.compose("ps", "--all"), stack.compose("logs", "--tail", "40"), file=sys.stderr)
        return 1
    finally:
        stack.compose("down", "--volumes", "--timeout", "20")
        subprocess.run(
            ["docker", "image", "rm", "--force", name], env=project_environment(found), capture_output=True, check=False
        )
        shutil.rmtree(scratch, ignore_errors=True)
    print("\n| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))
    print("\n".join(map(shown, rows)))
    return 0 if all(row.sound for row in rows) else 1
