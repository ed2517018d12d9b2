"""`make dev`: everything that the application needs, on this machine, until Ctrl-C.

A server that the settings name is used if it answers; otherwise an embedded one runs, with its data in `.dev/`.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.core.config import defaults, settings
from app.core.config.base import env_file, is_local
from devtools import secrets
from devtools.servers import FolderInUse, Servers, embedded_servers, free_port

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".dev"
ENV = DATA / "env"
# What is told to commands beside `make dev`: where its servers are.
TOLD = (
    *("DATABASE_URL", "BACKUP_PROGRAMS", "REDIS_CONNECTION_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"),
    *("EMAIL_PORT", "HEALTH_FOLDER"),
)


def say(line: str) -> None:
    """Print a line of our own at once, before what the processes print."""
    print(f"dev: {line}", flush=True)


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
        engine = create_async_engine(settings.database.sqlalchemy_url, poolclass=NullPool)
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


def choose_redis() -> bool:
    """Say which Redis is used, and return whether it is an embedded one."""
    concern: Any = getattr(settings, "redis", None)
    if concern is None:
        return False
    queues: Any = getattr(settings, "celery", None)
    urls: list[SecretStr] = [concern.connection_url]
    if queues is not None:
        urls += [queues.broker_url, queues.result_backend]
    problems = [problem for url in urls if (problem := redis_problem(url.get_secret_value()))]
    if problems:
        say(f"Redis: the one in the settings does not answer ({problems[0]}); an embedded Valkey runs instead")
    else:
        say("Redis: the one in the settings answers and is used")
    return bool(problems)


def choose_database() -> bool:
    """Say which database is used, and return whether it is an embedded PostgreSQL."""
    url = settings.database.sqlalchemy_url
    backend = url.get_backend_name()
    if backend == "sqlite":
        say(f"database: SQLite, {url.database}")
        return False
    problem = database_problem()
    if problem is None:
        say(f"database: {url} answers and is used")
        return False
    if backend == "postgresql":
        say(f"database: {url} does not answer ({problem}); an embedded PostgreSQL runs instead")
        return True
    say(f"database: {url} does not answer: {problem}")
    say("There is no embedded MySQL. Start one, make an empty database in it, and name it in the settings:")
    say(f"  DATABASE_URL=mysql://USER:PASSWORD@127.0.0.1:3306/{defaults.DATABASE_NAME}")
    say(f"  in {env_file().relative_to(ROOT)}, or in the environment")
    sys.exit(2)


def environment(servers: Servers) -> dict[str, str]:
    """Return the environment of the processes."""
    result = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # So that `python -m devtools.dev` of an environment that is not activated finds its commands too.
    result["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{result.get('PATH', '')}"
    if servers.database_url:
        result["DATABASE_URL"] = servers.database_url
        # A pg_dump of this machine may be older than the embedded server.
        result["BACKUP_PROGRAMS"] = str(servers.database_programs)
    # Heartbeats of this project alone.
    result["HEALTH_FOLDER"] = str(DATA)
    if servers.redis_port:
        result["REDIS_CONNECTION_URL"] = servers.redis_url(0)
        result["CELERY_BROKER_URL"] = servers.redis_url(1)
        result["CELERY_RESULT_BACKEND"] = servers.redis_url(2)
    return result


def choose_port(environment: dict[str, str], variable: str, default: int, what: str) -> int:
    """Put a free port into `environment`, the wanted one if possible, and return it."""
    wanted = int(environment.get(variable) or default)
    port = free_port(wanted)
    if port != wanted:
        say(f"{what}: port {wanted} is taken, so it is {port}")
    environment[variable] = str(port)
    return port


def choose_processes(environment: dict[str, str]) -> list[str]:
    """Return the Procfile's processes to start, with their ports in `environment`, and say where they are."""
    names = re.findall(r"^([\w-]+):", (ROOT / "Procfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    say(f"API: http://127.0.0.1:{choose_port(environment, 'PORT', 8000, 'API')}/docs")
    if "flower" in names:
        say(f"Flower: http://127.0.0.1:{choose_port(environment, 'FLOWER_PORT', 5555, 'Flower')}")
    if "mail" in names:
        mail: Any = getattr(settings, "email", None)
        if os.environ.get("DEV_MAIL") == "0" or not is_local(mail.host):
            names.remove("mail")
            say(f"mails: sent to {mail.host}:{mail.port}")
        else:
            # In the environment of all, as the worker must send to where the catcher listens.
            say(f"mails: printed below, from port {choose_port(environment, 'EMAIL_PORT', mail.port, 'mails')}")
    return names


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
    """Say in `.dev/env`, for the time of the block, where the servers are: `uv run --env-file .dev/env`."""
    lines = [f"{name}={_quoted(variables[name])}\n" for name in TOLD if name in variables]
    ENV.touch(mode=0o600)
    ENV.write_text("".join(lines), encoding="utf-8")
    try:
        yield
    finally:
        ENV.unlink(missing_ok=True)


def start(servers: Servers) -> int:
    """Bring the database up to date, run the Procfile, and return the exit code."""
    variables = environment(servers)
    say("database: applying the revisions (alembic upgrade heads)")
    code = run([sys.executable, "-m", "alembic", "upgrade", "heads"], variables)
    if code == 0:
        names = choose_processes(variables)
        say(f"commands beside it: uv run --env-file {ENV.relative_to(ROOT)} ...")
        say(f"starting {', '.join(names)}; Ctrl-C stops everything")
        with told(variables):
            # No file of settings: honcho would put `.env` before what was chosen here.
            code = run([sys.executable, "-m", "honcho", "-e", os.devnull, "start", *names], variables)
    return code


def main() -> None:
    """Start everything, and stop it in the reverse order."""
    os.chdir(ROOT)
    if settings.app.must_be_safe:
        sys.exit(f"ENVIRONMENT is {settings.app.environment}: `make dev` is for development.")
    secrets.protect(ROOT / "secret")
    redis, postgres = choose_redis(), choose_database()
    code = -signal.SIGINT
    try:
        # Being told to stop while the servers start is no failure either.
        with (
            contextlib.suppress(KeyboardInterrupt),
            embedded_servers(DATA, redis=redis, postgres=postgres, name=defaults.DATABASE_NAME) as servers,
        ):
            code = start(servers)
    except FolderInUse as error:
        sys.exit(f"dev: {error}")
    say("everything has stopped")
    sys.exit(0 if was_stopped(code) else code)


if __name__ == "__main__":
    main()
