"""`make dev`: everything that the application needs, on this machine, until Ctrl-C.

A server that the settings name is used. Where they have the generated default and nothing answers there, an embedded server
runs instead, with its data in `.dev/`. `DEV_SERVERS=embedded` uses no other servers.
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
# What commands beside `make dev` read from `.dev/env`: where its servers are.
TOLD = (
    *("DATABASE_URL", "BACKUP_PROGRAMS", "REDIS_CONNECTION_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"),
    "EMAIL_PORT",
)
EMBEDDED = os.environ.get("DEV_SERVERS") == "embedded"
START_LIMIT = 60.0
"""Seconds after which the last block names what has not started."""
HEARTBEATS = ("worker", "beat")
LOCAL_REDIS = "redis://localhost:6379/"
"""The start of the default of every setting that names a Redis database."""


def say(line: str) -> None:
    """Print a line of our own at once, before what the processes print."""
    print(f"dev: {line}", flush=True)


def stop(*lines: str) -> None:
    """End with 2 and these lines."""
    for line in lines:
        say(line)
    sys.exit(2)


def redis_problem(url: str) -> str | None:
    """Return why the Redis at `url` cannot be used, or None if it answers."""
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
    """Return why the database of the settings cannot be used, or None if a query works."""

    async def query() -> None:
        engine = create_async_engine(database_settings.sqlalchemy_url, poolclass=NullPool)
        try:
            async with asyncio.timeout(3), engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        finally:
            await engine.dispose()

    try:
        asyncio.run(query())
    # Drivers raise errors of their own while they connect, which SQLAlchemy does not wrap.
    except Exception as error:  # noqa: BLE001
        lines = str(getattr(error, "orig", None) or error or type(error).__name__).splitlines()
        return lines[0] if lines else type(error).__name__
    return None


def known_settings() -> dict[str, tuple[Any, str]]:
    """Return the value and the default, as text, of every setting by its variable."""
    found = {}
    for group in load_groups():
        for field, info in type(group).model_fields.items():
            default = info.default.get_secret_value() if isinstance(info.default, SecretStr) else str(info.default)
            found[type(group).variable(field)] = getattr(group, field), default
    return found


def choose_redis() -> dict[str, int]:
    """Return the variables that an embedded Valkey is for, with the number of the database."""
    embedded = {}
    for variable, (value, default) in known_settings().items():
        if not default.startswith(LOCAL_REDIS):
            continue
        url = value.get_secret_value()
        problem = None if EMBEDDED else redis_problem(url)
        if problem and url != default:
            stop(
                f"{variable} names a Redis that does not answer: {problem}",
                f"Start it, or set {variable}={default} for an embedded Valkey.",
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
        instead = f", or set DATABASE_URL={defaults.DATABASE_URL} for an embedded PostgreSQL" if embedded else ""
        stop(
            f"DATABASE_URL names a database that does not answer: {url}: {problem}",
            f"Start it and make the database{instead}.",
        )
    stop(
        f"{url} does not answer: {problem}",
        "There is no embedded MySQL. Start one, make an empty database in it, and name it in the settings:",
        f"  DATABASE_URL=mysql://USER:PASSWORD@127.0.0.1:3306/{defaults.DATABASE_NAME}",
        f"  in {env_file().relative_to(ROOT)}, or in the environment",
    )
    return False


def environment(servers: Servers, redis: dict[str, int]) -> dict[str, str]:
    """Return the environment of the processes; `redis` are the variables that the embedded Valkey is for, with the database."""
    result = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # So that `python -m devtools.dev` of an environment that is not activated finds its commands too.
    result["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{result.get('PATH', '')}"
    if servers.database_url:
        result["DATABASE_URL"] = servers.database_url
        # A pg_dump of this machine may be older than the embedded server.
        result["BACKUP_PROGRAMS"] = str(servers.database_programs)
    # Heartbeats of this project alone.
    result["HEALTH_FOLDER"] = str(DATA)
    for variable, number in redis.items():
        result[variable] = servers.redis_url(number)
    return result


def choose_port(environment: dict[str, str], variable: str, default: int, what: str) -> int:
    """Put a free port into `environment`, the wanted one if possible, and return it."""
    wanted = int(environment.get(variable) or default)
    port = free_port(wanted)
    if port != wanted:
        say(f"{what}: port {wanted} is taken, so it is {port}")
    environment[variable] = str(port)
    return port


def choose_processes(environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the Procfile's processes to start, with their ports in `environment`, and what to say of each place."""
    names = re.findall(r"^([\w-]+):", (ROOT / "Procfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    places = {"API": f"http://127.0.0.1:{choose_port(environment, 'PORT', 8000, 'API')}/docs"}
    if "flower" in names:
        login = flower_login()
        # Without a login Flower shows tasks, but refuses to stop one.
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
            places["mails"] = f"sent to {host}:{port}"
        else:
            # In the environment of all, as the worker must send to where the catcher listens.
            port = choose_port(environment, "EMAIL_PORT", port, "mails")
            places["mails"] = f"printed here, kept in .dev/mails; port {port}"
    return names, places


def flower_login() -> str:
    """Return Flower's user and password, which are the same the next time."""
    file = DATA / "flower"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(random.token_urlsafe(12), encoding="utf-8")
    return f"dev:{file.read_text(encoding='utf-8')}"


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end, passing signals on to it, and return its exit code."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment)

    def forward(number: int, _: FrameType | None) -> None:
        # A Ctrl-C reaches it from the terminal too; it takes the second one for the same.
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
    """Return whether an exit code says that a process was told to stop: -N as Python has it, 128 + N as a shell does."""
    return (-code if code < 0 else code - 128) in {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def _quoted(value: str) -> str:
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


@contextlib.contextmanager
def told(variables: dict[str, str]) -> Iterator[None]:
    """Say in `.dev/env`, for the time of the block, where the servers are: settings read it (app/core/config/base.py)."""
    lines = [f"{name}={_quoted(variables[name])}\n" for name in TOLD if name in variables]
    ENV.touch(mode=0o600)
    ENV.write_text("".join(lines), encoding="utf-8")
    try:
        yield
    finally:
        ENV.unlink(missing_ok=True)


def not_ready(port: int, names: list[str]) -> str | None:
    """Return which of the processes has not started yet, or None if all have."""
    for name in names:
        if name in HEARTBEATS and not (DATA / f"{name}.heartbeat").exists():
            return name
    return "api" if api_problem(port) else None


@contextlib.contextmanager
def announced(waits_for: Callable[[], str | None], lines: list[str]) -> Iterator[None]:
    """Say the lines as soon as `waits_for` names nothing, below what the processes print while they start."""
    ended = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + START_LIMIT
        while (found := waits_for()) and time.monotonic() < deadline and not ended.wait(0.2):
            pass
        if not ended.is_set():
            print(flush=True)
            say(
                f"{found} has not started in {START_LIMIT:.0f} s; its lines above say why"
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
    """Bring the database up to date, run the Procfile, and return the exit code."""
    variables = environment(servers, redis)
    code = run([sys.executable, "-m", "alembic", "upgrade", "heads"], variables)
    if code == 0:
        names, places = choose_processes(variables)
        url = database_settings.sqlalchemy_url
        places["database"] = "embedded PostgreSQL, data in .dev/postgresql" if servers.database_url else str(url)
        if redis:
            places["Redis"] = f"embedded Valkey, 127.0.0.1:{servers.redis_port}, data in .dev/valkey"
        elif "REDIS_CONNECTION_URL" in known_settings():
            places["Redis"] = "the one in the settings"
        lines = [f"  {what:<9} {where}" for what, where in places.items()]
        if "worker" in names:
            uv = "uv" if shutil.which("uv") else ".dev/tools/bin/uv"
            command = f"{uv} run celery -A app.core.celery:celery_app status"
            lines.append(f"Commands in another terminal use the same servers: {command}")
        lines.append("Ctrl-C stops everything.")
        say(f"starting {', '.join(names)}")
        for name in HEARTBEATS:
            (DATA / f"{name}.heartbeat").unlink(missing_ok=True)
        with told(variables), announced(lambda: not_ready(int(variables["PORT"]), names), lines):
            # No file of settings: honcho would put `.env` before what was chosen here.
            code = run([sys.executable, "-m", "honcho", "-e", os.devnull, "start", *names], variables)
    return code


def main() -> None:
    """Start everything, and stop it in the reverse order."""
    os.chdir(ROOT)
    if app_settings.must_be_safe:
        sys.exit(f"ENVIRONMENT is {app_settings.environment}: `make dev` is for development.")
    secrets.protect(ROOT / "secret")
    redis, postgres = choose_redis(), choose_database()
    code = -signal.SIGINT
    try:
        # Being told to stop while the servers start is no failure either.
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
