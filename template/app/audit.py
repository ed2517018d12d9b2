"""The production checklist of docs/deployment.md: `python -m app.audit [settings] [files] [services]`, all three by default.

Prints a line for each point, `ok`, `problem` or `skipped`, and exits with 1 if there is a problem. It changes nothing.
"""

import argparse
import asyncio
import contextlib
import functools
import importlib
import io
import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

if TYPE_CHECKING:
    from app.core.config import Settings

# The package of the settings is imported in `main` and later: what it refuses is a line of the audit, not a traceback.
ROOT = Path(__file__).resolve().parent.parent
"""The project's folder."""

_TIME_LIMIT = 5.0
_Client = Callable[[Callable[[Any], Any]], Any]
_REACHABLE_FROM = "Is it running, and does it let this host in? In containers run this audit there."


@dataclass(frozen=True)
class Finding:
    """One line of the audit."""

    state: Literal["ok", "problem", "skipped"]
    what: str
    text: str

    def __str__(self) -> str:
        """Return the line."""
        return f"{self.state:<8} {self.what}: {self.text}"


def settings_findings(settings: "Settings") -> Iterator[Finding]:
    """Give what the settings say: secrets, logs, mails and where files are kept."""
    if settings.app.must_be_safe:
        yield Finding("ok", "environment", settings.app.environment)
    else:
        yield _problem("environment", f"ENVIRONMENT is {settings.app.environment}: set it to production or staging.")
    problems = settings.audit()
    yield from (_problem("settings", text) for text in problems)
    if not problems:
        yield Finding("ok", "settings", "no default, weak or missing secret; statements are not logged")
    if settings.app.log_level == "DEBUG":
        yield _problem("logs", "LOG_LEVEL is DEBUG, which logs personal data: set INFO.")
    else:
        yield Finding("ok", "logs", f"LOG_LEVEL is {settings.app.log_level}")
    yield _proxy_finding(settings.app.forwarded_allow_ips)
    yield Finding("ok", "docs", "open to everybody" if settings.app.docs_enabled else "closed")
    yield from _email_findings(getattr(settings, "email", None))
    yield from _storage_findings(getattr(settings, "storage", None))


def _proxy_finding(trusted: Sequence[str]) -> Finding:
    contained = (ROOT / "docker-compose.yml").exists() or "KUBERNETES_SERVICE_HOST" in os.environ
    if contained and all(ipaddress.ip_network(one).is_loopback for one in trusted):
        text = "FORWARDED_ALLOW_IPS trusts this machine alone, but containers see a proxy at another address: name its network."
        return _problem("proxy", f"{text} Until then all clients share one rate limit.")
    return Finding("ok", "proxy", f"believed where it has one of these addresses: {', '.join(trusted)}")


def _email_findings(email: Any) -> Iterator[Finding]:
    if email is None:
        return
    from app.core.config.base import is_local  # noqa: PLC0415

    if is_local(email.host) or _is_example(email.host):
        yield _problem("email", "EMAIL_HOST is this machine or an example: name the mail server.")
    elif _is_example(email.from_email.rpartition("@")[2]):
        yield _problem("email", "EMAIL_FROM_EMAIL is an example: name an address that your mail server sends for.")
    else:
        yield Finding("ok", "email", f"sent through {email.host}")


def _is_example(host: str) -> bool:
    return f".{host}".endswith((".example.com", ".example.org", ".example.net"))


def _storage_findings(storage: Any) -> Iterator[Finding]:
    if storage is None:
        return
    uses_kubernetes = "KUBERNETES_SERVICE_HOST" in os.environ or (ROOT / "kubernetes").is_dir()
    if storage.is_bucket:
        yield Finding("ok", "storage", "a bucket")
    elif uses_kubernetes:
        yield _problem("storage", "STORAGE_URL is a folder, which pods do not share: name a bucket, s3://NAME.")
    else:
        yield Finding("ok", "storage", "a folder, which the API and all workers must share")


def file_findings() -> Iterator[Finding]:
    """Give who else can read the files with secrets: other users of this host, and git."""
    files = [path for path in _secret_files() if path.is_file()]
    if not files:
        yield Finding(
            "skipped",
            "files",
            "no settings files here: `make secrets` writes them, or the process environment has the settings",
        )
    else:
        exposed = [_name(path) for path in files if _others_may_read(path)]
        for name in exposed:
            yield _problem("files", f"{name} can be read by every user of this host: chmod 600 it")
        if not exposed:
            yield Finding("ok", "files", "other users of this host read no settings")
    tracked = _tracked()
    if tracked is None:
        yield Finding("skipped", "git", "this is no git work tree")
        return
    for name in tracked:
        yield _problem("git", f"{name} is in git: git rm --cached it, and change every secret that it held")
    if not tracked:
        yield Finding("ok", "git", "no settings file is tracked")


def _secret_files() -> Iterator[Path]:
    yield from sorted(path for path in (ROOT / "secret").glob("*") if path.suffix != ".example")
    yield from sorted((ROOT / "kubernetes" / "overlays").glob("*/*.env"))


def _others_may_read(path: Path) -> bool:
    folder = path.parent
    # Containers may need a readable file; a folder that others cannot enter protects it too.
    return bool(path.stat().st_mode & 0o006) and bool(folder.stat().st_mode & 0o001)


def _tracked() -> list[str] | None:
    """Return the names of files with secrets that git tracks; None where this is no work tree."""
    if not shutil.which("git"):
        return None
    command = ["git", "ls-files", "-z", "--", "secret", "kubernetes/overlays/*/*.env"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    return [name for name in done.stdout.split("\0") if name and not name.endswith(".example")]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


async def service_findings(settings: "Settings") -> AsyncIterator[Finding]:
    """Give what the database, Redis, the workers and beat say."""
    async for finding in _database_findings(settings):
        yield finding
    if getattr(settings, "redis", None) is not None:
        async for finding in _redis_findings(settings):
            yield finding


async def _database_findings(settings: "Settings") -> AsyncIterator[Finding]:
    database = importlib.import_module("app.core.database")
    failed = await _failure(settings, database.ping_database)
    if failed:
        yield _problem("database", f"does not answer: {failed}. {_REACHABLE_FROM}")
        yield Finding("skipped", "migrations", "the database does not answer")
        return
    yield Finding("ok", "database", "answers")
    failed = await _failure(settings, _require_migrated)
    if failed:
        yield _problem("migrations", failed)
    else:
        yield Finding("ok", "migrations", "the database is up to date")


class _Unmet(Exception):
    """A point of the checklist is not met; the message says so."""


async def _require_migrated() -> None:
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from alembic.script.revision import RevisionError  # noqa: PLC0415
    from sqlalchemy import Connection  # noqa: PLC0415

    from app.core.database import session_scope  # noqa: PLC0415

    def heads(connection: Connection) -> tuple[str, ...]:
        return MigrationContext.configure(connection).get_current_heads()

    async with session_scope() as db:
        current = await (await db.connection()).run_sync(heads)
    scripts = ScriptDirectory.from_config(Config(str(ROOT / "alembic.ini")))
    try:
        missing = list(scripts.iterate_revisions("heads", current, implicit_base=True))
    except RevisionError:
        raise _Unmet("the database has a revision that is not in migrations/: a newer release wrote it.") from None
    if missing:
        raise _Unmet(f"{len(missing)} revision(s) are not applied: alembic upgrade heads")


async def _redis_findings(settings: "Settings") -> AsyncIterator[Finding]:
    cache = importlib.import_module("app.core.redis").cache
    clients: dict[str, _Client] = {"cache": lambda use: use(cache.sync.client)}
    if getattr(settings, "celery", None) is not None:
        celery = importlib.import_module("app.core.celery").celery_app
        clients["broker"] = lambda use: _with_broker(celery, use)
        clients["results"] = lambda use: use(celery.backend.client)
    answering = []
    for name, client in clients.items():
        failed = await _failure(settings, _in_thread(client, lambda redis: redis.ping()))
        if failed:
            yield _problem(f"redis ({name})", f"does not answer: {failed}. {_REACHABLE_FROM}")
        else:
            answering.append(name)
            yield Finding("ok", f"redis ({name})", "answers")
    for name in ("broker", "results"):
        if name in answering:
            failed = await _failure(settings, _in_thread(clients[name], _require_keeping))
            yield _problem(f"redis ({name})", failed) if failed else Finding("ok", f"redis ({name})", "keeps its data")
            variable = {"broker": "CELERY_BROKER_URL", "results": "CELERY_RESULT_BACKEND"}[name]
            failed = await _failure(
                settings, _in_thread(clients[name], functools.partial(_require_permissions, variable))
            )
            yield (
                _problem(f"redis ({name})", failed)
                if failed
                else Finding("ok", f"redis ({name})", "allows what is needed")
            )
    if "broker" not in clients:
        return
    yield await _databases_finding(settings)
    parts = ["worker", *(("beat", "schedule") if (ROOT / "app" / "tasks" / "heartbeat_task.py").exists() else ())]
    for part in parts:
        if "broker" not in answering:
            yield Finding("skipped", part, "Redis does not answer")
            continue
        check = importlib.import_module("app.worker.liveness").check(part)
        failed = await _failure(settings, check)
        yield _problem(part, f"{failed}. Is it started?") if failed else Finding("ok", part, "was heard of")


def _with_broker(celery: Any, use: Callable[[Any], Any]) -> Any:
    with celery.pool.acquire(block=True, timeout=2) as connection:
        return use(connection.default_channel.client)


def _in_thread(client: _Client, use: Callable[[Any], Any]) -> Callable[[], Awaitable[Any]]:
    return lambda: asyncio.to_thread(client, use)


def _require_keeping(redis: Any) -> None:
    """Raise what is wrong with a server that is to lose nothing. INFO is open where a service forbids CONFIG."""
    problems = []
    policy = redis.info("memory").get("maxmemory_policy")
    if policy != "noeviction":
        problems.append(f"maxmemory-policy is {policy}, which drops tasks and results when it is full: set noeviction.")
    if not redis.info("persistence").get("aof_enabled"):
        problems.append("the append-only file is off, so that a restart loses tasks and results: set appendonly yes.")
    if problems:
        raise _Unmet(" ".join(problems))


def _require_permissions(variable: str, redis: Any) -> None:
    permissions = importlib.import_module("app.worker.permissions")
    missing = permissions.missing_permissions(redis)
    if missing:
        raise _Unmet(permissions.explain(variable, missing))


async def _databases_finding(settings: Any) -> Finding:
    urls = {
        "REDIS_CONNECTION_URL": settings.redis.connection_url,
        "CELERY_BROKER_URL": settings.celery.broker_url,
        "CELERY_RESULT_BACKEND": settings.celery.result_backend,
    }
    users: dict[tuple[str, int, str], list[str]] = {}
    for variable, url in urls.items():
        users.setdefault(_redis_database(url), []).append(variable)
    shared = [" and ".join(variables) for variables in users.values() if len(variables) > 1]
    if shared:
        text = f"{'; '.join(shared)} name the same database: give each its own, /0, /1 and /2, or its own server."
        return _problem("redis databases", text)
    return Finding("ok", "redis databases", "cache, queues and results have one each")


def _redis_database(url: SecretStr) -> tuple[str, int, str]:
    from app.core.config.base import is_local  # noqa: PLC0415

    parts = urlsplit(url.get_secret_value())
    host = "localhost" if is_local(parts.hostname) else str(parts.hostname)
    return host, parts.port or 6379, parts.path.strip("/") or "0"


async def _failure(settings: "Settings", check: Callable[[], Awaitable[object]]) -> str | None:
    """Return why `check` raised, in a line without secrets; None if it did not."""
    try:
        async with asyncio.timeout(_TIME_LIMIT):
            await check()
    except TimeoutError:
        return f"no answer within {_TIME_LIMIT:.0f} s"
    # Each driver has errors of its own.
    except Exception as error:  # noqa: BLE001
        cause = error.__cause__ if type(error).__name__ == "QueueUnavailable" and error.__cause__ else error
        first = (str(cause).strip() or type(cause).__name__).partition("\n")[0].rstrip(".")
        return _without_secrets(first, settings)
    return None


def _without_secrets(text: str, settings: "Settings") -> str:
    for concern in settings.concerns():
        for value in vars(concern).values():
            secret = value.get_secret_value() if isinstance(value, SecretStr) else ""
            password = urlsplit(secret).password or "" if "://" in secret else ""
            for hidden in filter(None, (secret, password, unquote(password))):
                text = text.replace(hidden, "***")
    return text


def _problem(what: str, text: str) -> Finding:
    return Finding("problem", what, text)


async def _collect(settings: "Settings", parts: Sequence[str]) -> list[Finding]:
    found: list[Finding] = []
    if "settings" in parts:
        found += settings_findings(settings)
    if "files" in parts:
        found += file_findings()
    if "services" in parts:
        found += [finding async for finding in service_findings(settings)]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the lines and return the exit code."""
    every = ["settings", "files", "services"]
    parser = argparse.ArgumentParser(prog="python -m app.audit", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="settings, files or services; all where none is named")
    parts = parser.parse_args(arguments).parts or every
    if not set(parts) <= set(every):
        parser.error(f"a part is one of {', '.join(every)}")
    try:
        with contextlib.redirect_stderr(io.StringIO()) as refused:
            settings = importlib.import_module("app.core.config").settings
    except SystemExit:
        found = [_problem("settings", line) for line in refused.getvalue().splitlines()]
    else:
        found = asyncio.run(_collect(settings, parts))
    for finding in found:
        print(finding)
    return 1 if any(finding.state == "problem" for finding in found) else 0


if __name__ == "__main__":
    sys.exit(main())
