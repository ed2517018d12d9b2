"""`make dev`: run the application and everything it needs on this machine, until Ctrl-C.

It uses the servers that the settings name. If a setting has the generated default and no server answers there, it starts an
embedded server with its data in `.dev/`. With `DEV_SERVERS=embedded`, it uses only embedded servers.
"""

import asyncio
import contextlib
import os
import re
import secrets as random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.core.config import defaults, load_groups
from app.core.config.application import app_settings
from app.core.config.base import env_file, is_local
from app.core.config.database import async_url, database_settings
from app.probe import api_problem
from devtools import secrets
from devtools.servers import FolderInUse, FolderUnusable, Servers, embedded_servers, free_port

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".dev"
ENV = DATA / "env"
# Commands in other terminals read these variables from `.dev/env`, so that they use the servers of `make dev`.
SHARED_VARIABLES = (
    *("DATABASE_URL", "BACKUP_PROGRAMS", "REDIS_CONNECTION_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"),
    "EMAIL_PORT",
)
EMBEDDED = os.environ.get("DEV_SERVERS") == "embedded"
START_LIMIT = 60.0
"""Seconds to wait for all processes before the summary names one that has not started."""
HEARTBEATS = ("worker", "beat")
LOCAL_REDIS = "redis://localhost:6379/"
"""How the default of every setting with a Redis URL starts."""


def say(line: str) -> None:
    """Print a line and flush it, so that it stays in order with the output of the processes."""
    print(f"dev: {line}", flush=True)


def stop(*lines: str) -> None:
    """Print the lines and exit with 2."""
    for line in lines:
        say(line)
    sys.exit(2)


def redis_problem(url: str) -> str | None:
    """Return why the Redis at `url` is unusable, or None if it answers."""
    import redis  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        return str(error)
    finally:
        client.close()
    return None


def database_problem() -> str | None:
    """Return why the configured database is unusable, or None if it answers a query."""

    async def query() -> None:
        engine = create_async_engine(database_settings.sqlalchemy_url, poolclass=NullPool)
        try:
            async with asyncio.timeout(3), engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        finally:
            await engine.dispose()

    try:
        asyncio.run(query())
    # While connecting, drivers raise their own errors, which SQLAlchemy does not wrap.
    except Exception as error:  # noqa: BLE001
        lines = str(getattr(error, "orig", None) or error or type(error).__name__).splitlines()
        return lines[0] if lines else type(error).__name__
    return None


def known_settings() -> dict[str, tuple[Any, str]]:
    """Return the value and the default (as text) of every setting, by variable."""
    found = {}
    for group in load_groups():
        for field, info in type(group).model_fields.items():
            default = info.default.get_secret_value() if isinstance(info.default, SecretStr) else str(info.default)
            found[type(group).variable(field)] = getattr(group, field), default
    return found


def choose_redis() -> dict[str, int]:
    """Return the variables that need an embedded Valkey, with the number of their database."""
    embedded = {}
    for variable, (value, default) in known_settings().items():
        if not default.startswith(LOCAL_REDIS):
            continue
        url = value.get_secret_value()
        problem = None if EMBEDDED else redis_problem(url)
        if problem and url != default:
            stop(
                f"{variable} names a Redis that does not answer: {problem}",
                f"Start it, or set {variable}={default} to use an embedded Valkey.",
            )
        if problem or EMBEDDED:
            embedded[variable] = int(default.removeprefix(LOCAL_REDIS))
    return embedded


def choose_database() -> bool:
    """Return whether an embedded PostgreSQL is needed."""
    url = database_settings.sqlalchemy_url
    if url.get_backend_name() == "sqlite":
        return False
    if EMBEDDED and url.get_backend_name() == "postgresql":
        return True
    problem = database_problem()
    if problem is None:
        return False
    default = url == async_url(defaults.DATABASE_URL)
    if url.get_backend_name() == "postgresql" and default:
        return True
    if not default:
        embedded = async_url(defaults.DATABASE_URL).get_backend_name() == "postgresql"
        instead = f", or set DATABASE_URL={defaults.DATABASE_URL} to use an embedded PostgreSQL" if embedded else ""
        stop(
            f"DATABASE_URL names a database that does not answer: {url}: {problem}",
            f"Start it and create the database{instead}.",
        )
    stop(
        f"{url} does not answer: {problem}",
        "There is no embedded MySQL. Start a server, create an empty database, and set DATABASE_URL:",
        f"  DATABASE_URL=mysql://USER:PASSWORD@127.0.0.1:3306/{defaults.DATABASE_NAME}",
        f"  in {env_file().relative_to(ROOT)} or in the process environment",
    )
    return False


def environment(servers: Servers, redis: dict[str, int]) -> dict[str, str]:
    """Return the environment of the processes; `redis` has the variables that need the embedded Valkey, with their database."""
    result = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # `python -m devtools.dev` must find its commands even if the virtual environment is not activated.
    result["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{result.get('PATH', '')}"
    if servers.database_url:
        result["DATABASE_URL"] = servers.database_url
        # The pg_dump of this machine may be older than the embedded server, which pg_dump refuses.
        result["BACKUP_PROGRAMS"] = str(servers.database_programs)
    # The default folder is shared: it may contain heartbeats of other projects.
    result["HEALTH_FOLDER"] = str(DATA)
    for variable, number in redis.items():
        result[variable] = servers.redis_url(number)
    return result


def choose_port(environment: dict[str, str], variable: str, default: int, what: str) -> int:
    """Set `variable` in `environment` to a free port, the wanted one if possible, and return it."""
    wanted = int(environment.get(variable) or default)
    port = free_port(wanted)
    if port != wanted:
        say(f"{what}: port {wanted} is in use; using {port}")
    environment[variable] = str(port)
    return port


def choose_processes(environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Set ports in `environment`; return the processes of the Procfile to start, and the address of each part to print."""
    names = re.findall(r"^([\w-]+):", (ROOT / "Procfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    places = {"API": f"http://127.0.0.1:{choose_port(environment, 'PORT', 8000, 'API')}/docs"}
    if "flower" in names:
        login = flower_login()
        # Without a login, Flower refuses to stop tasks.
        environment["FLOWER_BASIC_AUTH"] = login
        places["Flower"] = f"http://{login}@127.0.0.1:{choose_port(environment, 'FLOWER_PORT', 5555, 'Flower')}"
    known = known_settings()
    if "METRICS_API_PORT" in known:
        processes = {"METRICS_API_PORT": "API", **({"METRICS_WORKER_PORT": "worker"} if "worker" in names else {})}
        ports = [
            choose_port(environment, variable, known[variable][0], f"metrics of the {process}")
            for variable, process in processes.items()
        ]
        places["metrics"] = ", ".join(f"http://127.0.0.1:{port}/metrics" for port in ports)
    if "mail" in names:
        host, port = known["EMAIL_HOST"][0], known["EMAIL_PORT"][0]
        if os.environ.get("DEV_MAIL") == "0" or not is_local(host):
            names.remove("mail")
            places["mail"] = f"sent to {host}:{port}"
        else:
            # All processes get this variable: the worker must send to the port of the mail catcher.
            port = choose_port(environment, "EMAIL_PORT", port, "mail catcher")
            places["mail"] = f"printed here and kept in .dev/mails; SMTP port {port}"
    return names, places


def flower_login() -> str:
    """Return the user and password of Flower; the password is created once and kept in `.dev/flower`."""
    file = DATA / "flower"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(random.token_urlsafe(12), encoding="utf-8")
    return f"dev:{file.read_text(encoding='utf-8')}"


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command until it exits, forward signals to it, and return its exit code."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment)

    def forward(number: int, _: FrameType | None) -> None:
        # After Ctrl-C, it gets the signal from the terminal too; it ignores the second one.
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.kill()
            process.wait()


def was_stopped(code: int) -> bool:
    """Return whether a signal stopped the process: the exit code is -N in Python and 128 + N in a shell."""
    return (-code if code < 0 else code - 128) in {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def _quoted(value: str) -> str:
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


@contextlib.contextmanager
def shared_variables(variables: dict[str, str]) -> Iterator[None]:
    """Write the addresses of the servers to `.dev/env` inside the block; app/core/config/base.py reads them."""
    lines = [f"{name}={_quoted(variables[name])}\n" for name in SHARED_VARIABLES if name in variables]
    ENV.touch(mode=0o600)
    ENV.write_text("".join(lines), encoding="utf-8")
    try:
        yield
    finally:
        ENV.unlink(missing_ok=True)


def not_ready(port: int, names: list[str]) -> str | None:
    """Return the name of a process that has not started yet, or None if all have started."""
    for name in names:
        if name in HEARTBEATS and not (DATA / f"{name}.heartbeat").exists():
            return name
    return "api" if api_problem(port) else None


@contextlib.contextmanager
def summary_when_started(waits_for: Callable[[], str | None], lines: list[str]) -> Iterator[None]:
    """Print the lines once `waits_for` returns None, after the startup output of the processes."""
    ended = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + START_LIMIT
        while (found := waits_for()) and time.monotonic() < deadline and not ended.wait(0.2):
            pass
        if not ended.is_set():
            print(flush=True)
            say(
                f"{found} has not started within {START_LIMIT:.0f} s; see its output above"
                if found
                else "everything runs"
            )
            for line in lines:
                say(line)
            print(flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)


def start(servers: Servers, redis: dict[str, int]) -> int:
    """Apply the database revisions, run the Procfile, and return the exit code."""
    variables = environment(servers, redis)
    code = run([sys.executable, "-m", "alembic", "upgrade", "heads"], variables)
    if code == 0:
        names, places = choose_processes(variables)
        url = database_settings.sqlalchemy_url
        places["database"] = "embedded PostgreSQL, data in .dev/postgresql" if servers.database_url else str(url)
        if redis:
            places["Redis"] = f"embedded Valkey on 127.0.0.1:{servers.redis_port}, data in .dev/valkey"
        elif "REDIS_CONNECTION_URL" in known_settings():
            places["Redis"] = "the server in the settings"
        lines = [f"  {what:<9} {where}" for what, where in places.items()]
        if "worker" in names:
            uv = "uv" if shutil.which("uv") else ".dev/tools/bin/uv"
            command = f"{uv} run celery -A app.core.celery:celery_app status"
            lines.append(f"Commands in another terminal use the same servers: {command}")
        lines.append("Ctrl-C stops everything.")
        say(f"starting {', '.join(names)}")
        for name in HEARTBEATS:
            (DATA / f"{name}.heartbeat").unlink(missing_ok=True)
        with shared_variables(variables), summary_when_started(lambda: not_ready(int(variables["PORT"]), names), lines):
            # honcho must not read `.env`: it would override these variables.
            code = run([sys.executable, "-m", "honcho", "-e", os.devnull, "start", *names], variables)
    return code


def main() -> None:
    """Start everything; stop it in reverse order."""
    os.chdir(ROOT)
    if app_settings.must_be_safe:
        sys.exit(f"dev: ENVIRONMENT={app_settings.environment}, but `make dev` is for development only.")
    secrets.protect(ROOT / "secret")
    redis, postgres = choose_redis(), choose_database()
    code = -signal.SIGINT
    try:
        # Ctrl-C while the servers start is not a failure either.
        with (
            contextlib.suppress(KeyboardInterrupt),
            embedded_servers(DATA, redis=bool(redis), postgres=postgres, name=defaults.DATABASE_NAME) as servers,
        ):
            code = start(servers, redis)
    except (FolderInUse, FolderUnusable) as error:
        sys.exit(f"dev: {error}")
    say("everything has stopped")
    sys.exit(0 if was_stopped(code) else code)


if __name__ == "__main__":
    main()
