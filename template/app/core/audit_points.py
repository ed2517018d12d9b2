"""The audit's checks for every project: environment, settings files, git and database."""

import ipaddress
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from sqlalchemy import Connection

from app.core.audit import Finding, Unmet, failure_of, no_answer, problem
from app.core.config import audit_settings, defaults
from app.core.config.application import app_settings
from app.core.config.base import ROOT
from app.core.database import ping_database, session_scope


def settings_findings() -> Iterator[Finding]:
    """Check the settings: secrets, logs and proxies."""
    if app_settings.must_be_safe:
        yield Finding("ok", "environment", app_settings.environment)
    else:
        yield problem("environment", f"ENVIRONMENT is {app_settings.environment}; set it to production or staging.")
    unsafe = audit_settings()
    yield from (problem("settings", text) for text in unsafe)
    if not unsafe:
        yield Finding("ok", "settings", "no default, weak or missing secret; SQL statements are not logged")
    if app_settings.log_level == "DEBUG":
        yield problem("logs", "LOG_LEVEL is DEBUG, which logs personal data; set INFO.")
    else:
        yield Finding("ok", "logs", f"LOG_LEVEL is {app_settings.log_level}")
    yield proxy_finding(app_settings.forwarded_allow_ips)
    yield Finding("ok", "docs", "public" if app_settings.docs_enabled else "disabled")


def proxy_finding(trusted: Sequence[str], *, in_containers: bool = defaults.IN_CONTAINERS) -> Finding:
    """Check that the API trusts the proxy in front of its container."""
    contained = in_containers or "KUBERNETES_SERVICE_HOST" in os.environ
    if contained and all(ipaddress.ip_network(one).is_loopback for one in trusted):
        text = "FORWARDED_ALLOW_IPS trusts only this machine, but a container sees its proxy at another address."
        return problem("proxy", f"{text} Add the proxy's network; until then all clients share one rate limit.")
    return Finding("ok", "proxy", f"trusted addresses: {', '.join(trusted)}")


def file_findings() -> Iterator[Finding]:
    """Check that other users of this host cannot read the files with secrets, and that git does not track them."""
    files = [path for path in _secret_files() if path.is_file()]
    if not files:
        yield Finding(
            "skipped",
            "files",
            "no settings files: create them with `make secrets`, unless the process environment has the settings",
        )
    else:
        exposed = [_name(path) for path in files if _others_may_read(path)]
        for name in exposed:
            yield problem("files", f"{name} is readable by every user of this host; run chmod 600 on it")
        if not exposed:
            yield Finding("ok", "files", "other users of this host cannot read the settings")
    tracked = _tracked()
    if tracked is None:
        yield Finding("skipped", "git", "not a git work tree")
        return
    for name in tracked:
        yield problem("git", f"git tracks {name}; run git rm --cached on it and change every secret in it")
    if not tracked:
        yield Finding("ok", "git", "git tracks no settings file")


def _secret_files() -> Iterator[Path]:
    yield from sorted(path for path in (ROOT / "secret").glob("*") if path.suffix != ".example")
    yield from sorted((ROOT / "kubernetes" / "overlays").glob("*/*.env"))


def _others_may_read(path: Path) -> bool:
    folder = path.parent
    # Containers may need a readable file; a folder that others cannot enter protects it as well.
    return bool(path.stat().st_mode & 0o006) and bool(folder.stat().st_mode & 0o001)


def _tracked() -> list[str] | None:
    """Return the files with secrets that git tracks; None outside a git work tree."""
    if not shutil.which("git"):
        return None
    command = ["git", "ls-files", "-z", "--", "secret", "kubernetes/overlays/*/*.env"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    return [name for name in done.stdout.split("\0") if name and not name.endswith(".example")]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


async def database_findings() -> AsyncIterator[Finding]:
    """Check that the database is reachable and migrated."""
    failure = await failure_of(ping_database)
    if failure:
        yield no_answer("database", failure)
        yield Finding("skipped", "migrations", "the database is unreachable")
        return
    yield Finding("ok", "database", "reachable")
    failure = await failure_of(_require_migrated)
    yield problem("migrations", failure) if failure else Finding("ok", "migrations", "the database is up to date")


async def _require_migrated() -> None:
    def heads(connection: Connection) -> tuple[str, ...]:
        return MigrationContext.configure(connection).get_current_heads()

    async with session_scope() as db:
        current = await (await db.connection()).run_sync(heads)
    scripts = ScriptDirectory.from_config(Config(str(ROOT / "alembic.ini")))
    try:
        missing = list(scripts.iterate_revisions("heads", current, implicit_base=True))
    except RevisionError:
        raise Unmet(
            "the database has a revision that is not in migrations/; deploy the release that added it"
        ) from None
    if missing:
        raise Unmet(f"{len(missing)} revision(s) are not applied; run alembic upgrade heads")
