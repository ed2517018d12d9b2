"""Dump a MySQL or MariaDB database as SQL with its dump program, and load it with its client.

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
from app.features.backup.programs import find_program, run_program

SUFFIX = "sql"
_PACKAGE = "default-mysql-client (MariaDB's, works with both) or mysql-client"


@contextlib.asynccontextmanager
async def dump(url: URL) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield a consistent dump of the database in chunks; the database stays usable meanwhile.

    Raises:
        BackupFailed: the dump program is missing or fails.
    """
    with _options_file(url) as options:
        command = [
            find_program("mariadb-dump", "mysqldump", package=_PACKAGE),
            # Must be the first option.
            f"--defaults-file={options}",
            # A consistent state of all tables without locks, and no whole table in memory.
            *("--single-transaction", "--quick", "--skip-lock-tables"),
            *("--routines", "--triggers", "--events", "--no-tablespaces"),
            *("--default-character-set=utf8mb4", "--max-allowed-packet=1G"),
            url.database or "",
        ]
        async with run_program(command, {}, secret=url.password) as program:
            yield program.output()


async def load(url: URL, content: AsyncIterator[bytes], *, replace: bool) -> None:
    """Load a dump into the database. It cannot be rolled back, because MySQL commits at each DDL statement.

    Args:
        url: the database.
        content: the dump.
        replace: drop everything in the database first.

    Raises:
        BackupFailed: the client is missing or fails; the database may be partially restored.
    """
    program_path = find_program("mariadb", "mysql", package=_PACKAGE)
    if replace:
        await _empty(url)
    with _options_file(url) as options:
        command = [program_path, f"--defaults-file={options}", "--default-character-set=utf8mb4"]
        command += ["--max-allowed-packet=1G", url.database or ""]
        try:
            async with run_program(command, {}, reads_input=True, secret=url.password) as program:
                await program.feed(content)
        except BackupFailed as error:
            raise BackupFailed(
                f"{error}\nThe database may be partially restored; restore again with --force."
            ) from error


@contextlib.contextmanager
def _options_file(url: URL) -> Iterator[str]:
    """Write the URL to a file that only this user can read: every user of this host can see command lines."""
    socket = url.query.get("unix_socket")
    values = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "socket": socket,
        # Without it, `localhost` would mean a Unix socket.
        "protocol": "socket" if socket else "tcp",
        **{name.replace("_", "-"): url.query.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key")},
        # Only MySQL's program knows the option (`loose-`): a server with GTIDs would refuse to load them again.
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
        raise BackupFailed(f"The tables of the database could not be dropped: {error}") from error
    finally:
        await engine.dispose()


def _drop_all(connection: Connection) -> None:
    inspector = inspect(connection)
    quote = connection.dialect.identifier_preparer.quote
    # Without this, the tables would have to be dropped in the order of their foreign keys.
    connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
    for kind, names in (("VIEW", inspector.get_view_names()), ("TABLE", inspector.get_table_names())):
        for name in names:
            connection.exec_driver_sql(f"DROP {kind} {quote(name)}")
