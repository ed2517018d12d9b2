"""A PostgreSQL database as SQL, by pg_dump, and back, by psql. https://www.postgresql.org/docs/current/app-pgdump.html"""

import contextlib
import re
from collections.abc import AsyncIterator

from sqlalchemy.engine import URL

from app.features.backup.errors import BackupFailed
from app.features.backup.programs import Program, find_program, running

SUFFIX = "sql"
_PACKAGE = "postgresql-client, of the server's version or newer,"
_OLDER = re.compile(r"server version: (?P<server>\S+?)[ ;].*pg_dump version: (?P<program>\S+)", re.DOTALL)
# Everything but what every database has; it waits for nobody for long.
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
    """Give the database's content as of now, a piece at a time; it can be used meanwhile.

    Raises:
        BackupFailed: pg_dump is missing, older than the server, or says no.
    """
    # Owners and rights are of the server, not of the database: another one has other users.
    command = [find_program("pg_dump", package=_PACKAGE), "--no-password", "--no-owner", "--no-privileges"]
    async with running(command, _environment(url), secret=url.password) as program:
        yield _output(program)


async def load(url: URL, content: AsyncIterator[bytes], *, replace: bool) -> None:
    """Run a dump in the database, all of it or nothing.

    Args:
        url: the database.
        content: what `dump` gave.
        replace: drop first what is in the database.

    Raises:
        BackupFailed: psql is missing or says no; the database is as it was.
    """
    command = [find_program("psql", package=_PACKAGE), "--no-password", "--no-psqlrc", "--quiet"]
    command += ["--set=ON_ERROR_STOP=1", "--file=-"]
    async with running(command, _environment(url), fed=True, secret=url.password) as program:
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
            f"pg_dump {versions['program']} is older than the server, {versions['server']}: install the package "
            f"postgresql-client-{major} where the worker runs, or name the folder of its programs in BACKUP_PROGRAMS."
        ) from error


async def _in_transaction(content: AsyncIterator[bytes], *, replace: bool) -> AsyncIterator[bytes]:
    # Not psql's --single-transaction, which would commit what there is when its input ends too early.
    yield b"BEGIN;\n"
    if replace:
        yield _EMPTY
    async for chunk in content:
        yield chunk
    yield b"\nCOMMIT;\n"


def _environment(url: URL) -> dict[str, str]:
    """Return the URL as libpq's variables: a command line would show the password to everybody on the machine."""
    _, options = url.get_dialect()().create_connect_args(url)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "database": "PGDATABASE"}
    environment = {"PGCONNECT_TIMEOUT": "10"}
    for option, variable in {**names, "ssl": "PGSSLMODE"}.items():
        value = options.get(option)
        if value is not None:
            environment[variable] = ",".join(str(one) for one in value) if isinstance(value, list) else str(value)
    return environment
