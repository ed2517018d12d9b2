"""Dump an SQLite database as a file, and load it. https://www.sqlite.org/backup.html

Temporary copies are written to the folder for temporary files (TMPDIR).
"""

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL

from app.features.backup.errors import BackupFailed

SUFFIX = "db"
_CHUNK = 1024 * 1024
_WAIT = 30.0


@contextlib.asynccontextmanager
async def dump(url: URL) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield a consistent dump of the database in chunks; the database stays usable meanwhile.

    Raises:
        BackupFailed: the database does not exist, is damaged, or stays locked.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        await asyncio.to_thread(_copy, _uri(url, "rw"), _file_uri(copy, "rwc"))
        await asyncio.to_thread(_check, copy)
        yield _chunks(copy)


async def load(url: URL, content: AsyncIterator[bytes], *, replace: bool) -> None:
    """Replace the database with a dump in one transaction.

    Args:
        url: the database.
        content: the dump.
        replace: ignored; SQLite's backup always replaces the whole database.

    Raises:
        BackupFailed: the dump is damaged, or the database is in use.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        with copy.open("wb") as file:
            async for chunk in content:
                file.write(chunk)
        await asyncio.to_thread(_check, copy)
        await asyncio.to_thread(_copy, _file_uri(copy, "rw"), _uri(url, "rwc"))


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _copy(source: str, target: str) -> None:
    try:
        with (
            contextlib.closing(sqlite3.connect(source, uri=True, timeout=_WAIT)) as reader,
            contextlib.closing(sqlite3.connect(target, uri=True, timeout=_WAIT)) as writer,
        ):
            # In one step: a write between two steps would restart the copy.
            reader.backup(writer, progress=_give_up_when_locked)
    except sqlite3.Error as error:
        raise BackupFailed(f"SQLite: {error}") from error


def _give_up_when_locked(status: int, _remaining: int, _total: int) -> None:
    # SQLite has waited for _WAIT; `backup` would retry forever.
    if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        raise BackupFailed(f"SQLite: another process has locked the database for {_WAIT:g} s; stop that process first.")


def _check(path: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(_file_uri(path, "rw"), uri=True)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise BackupFailed(f"SQLite: the database is damaged: {found}")


def _uri(url: URL, mode: str) -> str:
    name = url.database
    if not name or name == ":memory:":
        raise BackupFailed("An in-memory SQLite database cannot be backed up; set DATABASE_URL to a file.")
    if name.startswith("file:"):
        return name
    path = Path(name)
    if mode == "rw" and not path.is_file():
        raise BackupFailed(f"The SQLite database {path} does not exist.")
    return _file_uri(path, mode)


def _file_uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path))}?mode={mode}"
