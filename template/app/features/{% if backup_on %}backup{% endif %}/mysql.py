"""A MySQL or MariaDB database as SQL, by its dump program, and back, by its client.

https://mariadb.com/kb/en/mariadb-dump/ https://dev.mysql.com/doc/refman/en/mysqldump.html
"""

import contextlib
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.features.backup.errors import BackupFailed
from app.features.backup.programs import find_program, running

SUFFIX = "sql"
_PACKAGE = "default-mysql-client (MariaDB's, for either) or mysql-client"


@contextlib.asynccontextmanager
async def dump(url: URL) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give the database's content as of now, a piece at a time; it can be used meanwhile.

    Raises:
        BackupFailed: the dump program is missing or says no.
    """
    with _options_file(url) as options:
        command = [
            find_program("mariadb-dump", "mysqldump", package=_PACKAGE),
            # First, as it must be.
            f"--defaults-file={options}",
            # One state of all tables, without locking them, and no table in memory as a whole.
            *("--single-transaction", "--quick", "--skip-lock-tables"),
            *("--routines", "--triggers", "--events", "--no-tablespaces"),
            *("--default-character-set=utf8mb4", "--max-allowed-packet=1G"),
            url.database or "",
        ]
        async with running(command, {}, secret=url.password) as program:
            yield program.output()


async def load(url: URL, content: AsyncIterator[bytes], *, replace: bool) -> None:
    """Run a dump in the database. There is no undoing: MySQL's statements about tables are no part of a transaction.

    Args:
        url: the database.
        content: what `dump` gave.
        replace: drop first what is in the database.

    Raises:
        BackupFailed: the client is missing or says no; the database may be filled in part.
    """
    program_path = find_program("mariadb", "mysql", package=_PACKAGE)
    if replace:
        await _empty(url)
    with _options_file(url) as options:
        command = [program_path, f"--defaults-file={options}", "--default-character-set=utf8mb4"]
        command += ["--max-allowed-packet=1G", url.database or ""]
        try:
            async with running(command, {}, fed=True, secret=url.password) as program:
                await program.feed(content)
        except BackupFailed as error:
            raise BackupFailed(f"{error}\nThe database may be filled in part: restore with --force.") from error


@contextlib.contextmanager
def _options_file(url: URL) -> Iterator[str]:
    """Write the URL into a file that only this user reads: a command line would show the password to everybody."""
    socket = url.query.get("unix_socket")
    values = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "socket": socket,
        # Otherwise `localhost` would mean a socket.
        "protocol": "socket" if socket else "tcp",
        **{name.replace("_", "-"): url.query.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key")},
        # Only MySQL's own program knows it: a server with GTIDs would refuse to load them again.
        "loose-set-gtid-purged": "OFF",
    }
    lines = [f"{name}={_quoted(str(value))}" for name, value in values.items() if value is not None]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "options.cnf"
        path.touch(mode=0o600)
        path.write_text("\n".join(["[client]", *lines, ""]), encoding="utf-8")
        yield str(path)


def _quoted(value: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + re.sub(r'[\\"\n\r\t]', lambda found: escapes[found[0]], value) + '"'


async def _empty(url: URL) -> None:
    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_drop_all)
    except SQLAlchemyError as error:
        raise BackupFailed(f"The database could not be emptied: {error}") from error
    finally:
        await engine.dispose()


def _drop_all(connection: Connection) -> None:
    inspector = inspect(connection)
    quote = connection.dialect.identifier_preparer.quote
    # Otherwise their order would matter.
    connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
    for kind, names in (("VIEW", inspector.get_view_names()), ("TABLE", inspector.get_table_names())):
        for name in names:
            connection.exec_driver_sql(f"DROP {kind} {quote(name)}")
