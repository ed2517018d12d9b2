"""Dump a PostgreSQL database as SQL with pg_dump, and load it with psql.

https://www.postgresql.org/docs/current/app-pgdump.html
"""

import contextlib
import re
from collections.abc import AsyncIterator

from sqlalchemy.engine import URL

from app.features.backup.errors import BackupFailed
from app.features.backup.programs import Program, find_program, run_program

SUFFIX = "sql"
_PACKAGE = "postgresql-client (of the server's version or newer)"
_OLDER = re.compile(r"server version: (?P<server>\S+?)[ ;].*pg_dump version: (?P<program>\S+)", re.DOTALL)
# Drops all schemas except the system's; lock_timeout limits how long it waits for other connections.
_EMPTY = b"""
SET lock_timeout = '30s';
DO $$
DECLARE name text;
BEGIN
  FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', name);
  END LOOP;
END $$;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""


@contextlib.asynccontextmanager
async def dump(url: URL) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield a consistent dump of the database in chunks; the database stays usable meanwhile.

    Raises:
        BackupFailed: pg_dump is missing, older than the server, or fails.
    """
    # Owners and privileges refer to roles of this server, which another server does not have.
    command = [find_program("pg_dump", package=_PACKAGE), "--no-password", "--no-owner", "--no-privileges"]
    async with run_program(command, _environment(url), secret=url.password) as program:
        yield _output(program)


async def load(url: URL, content: AsyncIterator[bytes], *, replace: bool) -> None:
    """Load a dump into the database in one transaction.

    Args:
        url: the database.
        content: the dump.
        replace: drop everything in the database first.

    Raises:
        BackupFailed: psql is missing or fails; the database is unchanged.
    """
    command = [find_program("psql", package=_PACKAGE), "--no-password", "--no-psqlrc", "--quiet"]
    command += ["--set=ON_ERROR_STOP=1", "--file=-"]
    async with run_program(command, _environment(url), reads_input=True, secret=url.password) as program:
        await program.feed(_in_transaction(content, replace=replace))


async def _output(program: Program) -> AsyncIterator[bytes]:
    try:
        async for chunk in program.output():
            yield chunk
    except BackupFailed as error:
        versions = _OLDER.search(str(error))
        if versions is None:
            raise
        major = versions["server"].partition(".")[0]
        raise BackupFailed(
            f"pg_dump {versions['program']} is older than the server {versions['server']}. Install the package "
            f"postgresql-client-{major} on the worker, or set BACKUP_PROGRAMS to the folder of its programs."
        ) from error


async def _in_transaction(content: AsyncIterator[bytes], *, replace: bool) -> AsyncIterator[bytes]:
    # Not psql's --single-transaction: it would commit a truncated dump.
    yield b"BEGIN;\n"
    if replace:
        yield _EMPTY
    async for chunk in content:
        yield chunk
    yield b"\nCOMMIT;\n"


def _environment(url: URL) -> dict[str, str]:
    """Return the URL as libpq's environment variables: every user of this host can see command lines."""
    _, options = url.get_dialect()().create_connect_args(url)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "database": "PGDATABASE"}
    environment = {"PGCONNECT_TIMEOUT": "10"}
    for option, variable in {**names, "ssl": "PGSSLMODE"}.items():
        value = options.get(option)
        if value is not None:
            environment[variable] = ",".join(str(one) for one in value) if isinstance(value, list) else str(value)
    return environment
