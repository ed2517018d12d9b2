"""One Valkey server for all systems of a part, and PostgreSQL where asked for: those that generated projects embed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.context import Context, Failed
from benchmarks.environments import Environment
from benchmarks.resp import Client
from forge_template import ROOT, project_environment

T = TypeVar("T")

_DATABASES = range(3)
_CHUNK = 2000

Snapshot = list[tuple[int, bytes, int, bytes]]
"""Database, key, remaining milliseconds to live or 0, and value of each key."""


@dataclass(frozen=True)
class Server:
    """The servers of a part, and the environment variables that programs find them by."""

    port: int
    marks: Path
    """The file that tasks append to; see peers/mark.py."""
    database_url: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    def flush(self) -> None:
        """Delete every key, and every mark."""
        with Client(self.port) as client:
            client("FLUSHALL")
        self.marks.write_bytes(b"")

    def snapshot(self) -> Snapshot:
        """Return every key with its value."""
        found: Snapshot = []
        for database in _DATABASES:
            with Client(self.port, database) as client:
                keys = client.scan()
                for chunk in _chunks(keys):
                    left = client.pipeline([("PTTL", key) for key in chunk])
                    values = client.pipeline([("DUMP", key) for key in chunk])
                    found += [
                        (database, key, max(0, ttl), value)
                        for key, ttl, value in zip(chunk, left, values, strict=True)
                        if value is not None
                    ]
        return found

    def restore(self, snapshot: Snapshot) -> None:
        """Replace everything by what a snapshot holds."""
        self.flush()
        for database in _DATABASES:
            with Client(self.port, database) as client:
                keys = [one[1:] for one in snapshot if one[0] == database]
                for chunk in _chunks(keys):
                    client.pipeline([("RESTORE", key, ttl, value) for key, ttl, value in chunk])


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


@contextmanager
def running_server(context: Context, project: Environment, *, postgres: bool = False) -> Iterator[Server]:
    """Run the servers until the end of the block, without persistence: a snapshot during a run would slow it."""
    folder = context.scratch / "server"
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                project.python,
                "-m",
                "benchmarks.project.server",
                str(folder / "data"),
                *(["--postgres"] if postgres else []),
            ],
            cwd=project.folder,
            env=project_environment({"PYTHONPATH": str(ROOT)}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        # It prints where the servers are, and stops them when its input ends.
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise Failed(f"the servers did not start:\n{(folder / 'log').read_text(encoding='utf-8')}")
        told = json.loads(line)
        port, database_url = int(told["redis_port"]), str(told["database_url"])
        with Client(port) as client:
            client("CONFIG", "SET", "save", "")
        marks = context.scratch / "marks"
        marks.write_bytes(b"")
        yield Server(port, marks, database_url, variables(port, marks, database_url))
    finally:
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def variables(port: int, marks: Path, database_url: str) -> dict[str, str]:
    """Return what a program needs to find the servers and the benchmarks."""
    urls = [f"redis://127.0.0.1:{port}/{number}" for number in _DATABASES]
    names = ("REDIS_CONNECTION_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")
    return {
        **dict(zip(names, urls, strict=True)),
        **({"DATABASE_URL": database_url} if database_url else {}),
        "ENVIRONMENT": "development",
        "RQ_REDIS_URL": urls[1],
        "BENCHMARK_MARKS": str(marks),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
