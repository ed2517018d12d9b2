"""Embedded servers, an SMTP sink and a real worker for the pasted snippets. Runs in the generated project."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from devtools.servers import embedded_servers, free_port

PROJECT = Path(__file__).resolve().parent.parent
_stack = ExitStack()


class Sink:
    def __init__(self):
        self.mails = []

    async def handle_DATA(self, server, session, envelope):
        self.mails.append(BytesParser(policy=default).parsebytes(envelope.content))
        return "250 kept"


sink_handler = Sink()


def pytest_configure(config):
    """Start the servers before a test module imports the application, which reads its settings then."""
    folder = Path(_stack.enter_context(tempfile.TemporaryDirectory(prefix="forge-pasted-", ignore_cleanup_errors=True)))
    servers = _stack.enter_context(embedded_servers(folder / "servers", redis=True, postgres=True))
    controller = Controller(sink_handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    _stack.callback(controller.stop)
    redis = f"redis://127.0.0.1:{servers.redis_port}"
    os.environ.update(
        DATABASE_URL=servers.database_url,
        REDIS_CONNECTION_URL=f"{redis}/0",
        CELERY_BROKER_URL=f"{redis}/1",
        CELERY_RESULT_BACKEND=f"{redis}/2",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=str(controller.port),
        PASTED_FOLDER=str(folder),
    )
    subprocess.run([sys.executable, "-m", "alembic", "upgrade", "heads"], cwd=PROJECT, check=True)


def pytest_unconfigure():
    _stack.close()


class Program:
    """A `celery` command that keeps running; its output goes to a file."""

    def __init__(self, *arguments):
        self.log = Path(os.environ["PASTED_FOLDER"]) / f"{'-'.join(arguments).replace('/', '_')[:60]}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                ["celery", "-A", "app.core.celery:celery_app", *arguments],
                cwd=PROJECT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self):
        return self.log.read_text(errors="replace")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"did not stop:\n{self.output()[-5000:]}") from None

    def until(self, what, limit=60):
        until(lambda: what in self.output(), f"{what!r} in the output", self, limit)


def until(met, what, program=None, limit=60):
    """Wait until `met()`, with a time limit; show the program's output when it is over."""
    end = time.monotonic() + limit
    while not met():
        shown = program.output()[-5000:] if program else ""
        assert program is None or program.process.poll() is None, f"ended while waiting for {what}:\n{shown}"
        assert time.monotonic() < end, f"no {what} within {limit} s:\n{shown}"
        threading.Event().wait(0.1)


def celery(*arguments, status=0):
    """Run a `celery` command of the page and return its output."""
    done = subprocess.run(
        ["celery", "-A", "app.core.celery:celery_app", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def worker():
    program = Program("worker", "--loglevel=info", "--concurrency=2")
    until(lambda: "pong" in ping(), "answer to a ping", program)
    yield program
    program.stop()


def ping():
    done = subprocess.run(
        ["celery", "-A", "app.core.celery:celery_app", "inspect", "ping"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


@pytest.fixture
def sink():
    return sink_handler
