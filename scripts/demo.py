"""Copy the template, start the project, run a task of each kind on it and stop it again: `make demo`.

Everything happens in a temporary folder, on free ports, and on the servers that the project embeds.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default as default_policy
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
from aiosmtpd.controller import Controller

from forge_template import clone_working_tree, project_environment

STARTED_AT = time.monotonic()
TASKS = {
    "send_welcome_email": "mail to a local SMTP sink",
    "record_activity": "async task, writes to the database",
    "process_task": "the API waits for its result",
    "tick": "scheduled by beat",
}
START_LIMIT = 120.0
TASK_LIMIT = 60.0
STOP_LIMIT = 45.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Failed(Exception):
    """A step of the demo that did not do what it should."""


def say(text: str) -> None:
    """Print `text` after the seconds since the start."""
    print(f"[{time.monotonic() - STARTED_AT:6.1f} s] {text}", flush=True)


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Sink:
    """An SMTP server that keeps what it is sent."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=free_ports(1)[0])

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep one mail."""
        mail = BytesParser(policy=default_policy).parsebytes(envelope.content)
        if isinstance(mail, EmailMessage):
            self.mails.append(mail)
        return "250 kept"

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Serve until the block ends; gives the port."""
        self._controller.start()
        try:
            yield int(self._controller.port)
        finally:
            self._controller.stop()


@dataclass
class TaskLine:
    """One task's start or end, as the worker logged it."""

    event: str
    task: str
    task_id: str
    state: str
    queue_wait: float | None
    run_time: float | None


def parse(line: str) -> TaskLine | None:
    """Read a worker's log line behind whatever prefix honcho gave it; None for any other line."""
    text = _ANSI.sub("", line)
    start = text.find("{")
    if start < 0:
        return None
    try:
        entry = json.loads(text[start:])
    except ValueError:  # other programs print braces too
        return None
    if not isinstance(entry, dict) or entry.get("event") not in ("task_started", "task_finished"):
        return None
    return TaskLine(
        event=entry["event"],
        task=str(entry.get("task", "?")).rsplit(".", 1)[-1],
        task_id=str(entry.get("task_id", "?")),
        state=str(entry.get("state", "STARTED")),
        queue_wait=entry.get("queue_wait"),
        run_time=entry.get("run_time"),
    )


class Running:
    """The project's `make dev`, its log and the tasks seen in it."""

    def __init__(self, project: Path, environment: dict[str, str], log: Path) -> None:
        self.log = log
        self.project = project
        self.finished: dict[str, TaskLine] = {}
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            ["uv", "run", "--no-sync", "python", "-m", "devtools.dev"],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is None:
            raise RuntimeError("the project was started without a pipe")
        with self.log.open("w", encoding="utf-8") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                self._lines.put(line)
        self._lines.put(None)

    def show(self, wait: float) -> None:
        """Show the tasks that the log tells of within `wait` seconds; fail if the project ends by itself."""
        end = time.monotonic() + wait
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return
            if line is None:
                raise Failed(f"the project stopped by itself, with exit status {self.process.wait()}")
            seen = parse(line)
            if seen is None:
                continue
            if seen.event == "task_finished":
                self.finished.setdefault(seen.task, seen)
            say(
                f"  {seen.task:<18} {seen.state:<8} queue wait {_seconds(seen.queue_wait)}"
                f"   run time {_seconds(seen.run_time)}   {TASKS.get(seen.task, '')}"
            )

    def until(self, what: str, met: Callable[[], bool], limit: float) -> None:
        """Wait until `met()`, showing tasks meanwhile and, every ten seconds, what is waited for."""
        end = time.monotonic() + limit
        reminder = time.monotonic() + 10
        while not met():
            if time.monotonic() > end:
                raise Failed(f"{what}: nothing within {limit:.0f} s")
            if time.monotonic() > reminder:
                say(f"  … waiting: {what}")
                reminder += 10
            self.show(0.2)

    def stop(self) -> None:
        """Interrupt the project as Ctrl-C does; fail if a process of it is left."""
        family = self._family()
        self._signal(signal.SIGINT)
        _gone, left = psutil.wait_procs(family, timeout=STOP_LIMIT)
        if left:
            self._signal(signal.SIGTERM)
            _gone, left = psutil.wait_procs(left, timeout=10)
        left = [one for one in {*left, *self._family()} if _runs(one)]
        names = [f"{one.pid} {_name(one)}" for one in left]
        for one in left:
            one.kill()
        self.process.wait(timeout=10)
        self._reader.join(timeout=10)
        if names:
            raise Failed(f"still running after Ctrl-C, killed: {', '.join(names)}")

    def _family(self) -> list[psutil.Process]:
        """Return the project's processes: descendants, and those in its folder that left the family, as servers do."""
        found: set[psutil.Process] = set()
        if self.process.poll() is None:
            root = psutil.Process(self.process.pid)
            found = {root, *root.children(recursive=True)}
        for one in psutil.process_iter():
            try:
                where = [one.cwd(), *one.cmdline()]
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # ended meanwhile, or somebody else's
                continue
            if one.pid != os.getpid() and any(part.startswith(str(self.project)) for part in where):
                found.add(one)
        return list(found)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            say("  the project's process group is gone already")

    def tail(self) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-60:])


def _runs(process: psutil.Process) -> bool:
    try:
        # One that ended and that nobody has asked about yet is no longer there for anybody else.
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return "(gone)"


def _seconds(value: float | None) -> str:
    return "     -   " if value is None else f"{value:7.3f} s"


def shown(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a command with its own output on the terminal."""
    done = subprocess.run(arguments, cwd=folder, env=environment, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(arguments)} ended with {done.returncode}")


def generate(scratch: Path) -> Path:
    """Copy the template with its default answers, as a person does, and install the project."""
    say("copying the template with default answers")
    template = clone_working_tree(scratch / "template")
    environment = project_environment(
        {"COPIER_CACHE_DIR": str(scratch / "cache"), "COPIER_SETTINGS_PATH": str(scratch / "settings.yml")}
    )
    (scratch / "settings.yml").write_text("{}\n", encoding="utf-8")
    copier = [sys.executable, "-m", "copier", "copy", "--trust", "--defaults", "--quiet", "--vcs-ref", "HEAD"]
    shown([*copier, str(template), "project"], scratch, environment)
    project = scratch / "project"
    say(f"{sum(1 for one in project.rglob('*') if one.is_file())} files written")
    say("installing the project (uv sync)")
    shown(["uv", "sync", "--quiet"], project, project_environment())
    return project


def ready(client: httpx.Client) -> bool:
    """Tell whether database, Redis and worker are there."""
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:  # the server does not listen yet
        return False


def checked(response: httpx.Response, *expected: int) -> dict[str, Any]:
    """Return the body of a response whose status is expected."""
    if response.status_code not in expected:
        raise Failed(f"{response.request.method} {response.url.path} gave {response.status_code}: {response.text}")
    body: dict[str, Any] = response.json()
    return body


def work(running: Running, client: httpx.Client, sink: Sink) -> None:
    """Queue tasks through the API and see each of them through."""
    running.until("/ready answers 200", lambda: ready(client), START_LIMIT)
    checks = checked(client.get("/ready"), 200)["checks"]
    say(f"ready: {', '.join(f'{name} {state}' for name, state in checks.items())}")

    say("POST /register")
    account = {"email": "ada@example.com", "password": "correct horse battery staple"}
    registered = checked(client.post("/register", json=account), 201)
    mail_id = registered["task_id"]
    say("POST /process")
    processed = checked(client.post("/process", json={"answer": 42}), 200)
    if processed["status"] != "completed":
        raise Failed(f"POST /process gave {processed}")

    for task, what in TASKS.items():
        running.until(f"{task} ({what})", lambda task=task: task in running.finished, TASK_LIMIT)  # type: ignore[misc]
        state = running.finished[task].state
        if state != "SUCCESS":
            raise Failed(f"{task} ended as {state}")

    running.until("the mail reaches the SMTP sink", lambda: bool(sink.mails), TASK_LIMIT)
    if account["email"] not in str(sink.mails[0]["To"]):
        raise Failed(f"the mail went to {sink.mails[0]['To']}")
    say(f"mail received: {sink.mails[0]['Subject']!r} to {sink.mails[0]['To']}")
    status = checked(client.get(f"/task/{mail_id}"), 200)
    if status["status"] != "SUCCESS":
        raise Failed(f"GET /task/{mail_id} gave {status}")
    say(f"GET /task/{mail_id}: {status['status']} {status['result']}")


def demo(scratch: Path) -> None:
    """Run the whole of it in `scratch`."""
    project = generate(scratch)
    api, flower = free_ports(2)
    sink = Sink()
    with sink.listening() as smtp:
        environment = project_environment(
            {
                "PORT": str(api),
                "FLOWER_PORT": str(flower),
                "DEV_MAIL": "0",
                "EMAIL_HOST": "127.0.0.1",
                "EMAIL_PORT": str(smtp),
                "LOG_FORMAT": "json",
                # A server that already runs on this machine is not the demo's to use.
                "DEV_SERVERS": "embedded",
                "PYTHONUNBUFFERED": "1",
            }
        )
        say(f"starting API (port {api}), worker, beat and Flower on embedded Valkey and PostgreSQL")
        running = Running(project, environment, scratch / "dev.log")
        problem: Failed | None = None
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{api}", timeout=40, trust_env=False) as client:
                work(running, client, sink)
        except Failed as error:
            problem = error
        finally:
            say("stopping everything")
            try:
                running.stop()
            except Failed as error:
                problem = problem or error
        if problem:
            print(f"\n--- the end of the project's log ---\n{running.tail()}\n---", file=sys.stderr)
            raise problem


def main() -> int:
    """Run the demo; the exit status says whether every step worked."""
    # A terminated demo stops its processes as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scratch = Path(tempfile.mkdtemp(prefix="forge-demo-"))
    try:
        demo(scratch)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except Failed as error:
        say(f"FAILED: {error}")
        return 1
    except (httpx.HTTPError, OSError, subprocess.SubprocessError) as error:
        say(f"FAILED: {type(error).__name__}: {error}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say("done: every task ran, and nothing is left running. README.md says how to copy a project of your own")
    return 0


if __name__ == "__main__":
    sys.exit(main())
