"""Dump a database to a stream and load it again: one module for each kind of database."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy.engine import URL

from app.features.backup import mysql, postgresql, sqlite
from app.features.backup.errors import BackupFailed


class Dumper(Protocol):
    """Dumps and loads one kind of database. The docstrings of each module list the exceptions."""

    SUFFIX: str

    def dump(self, url: URL) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Yield a consistent dump of the database in chunks."""

    async def load(self, url: URL, content: AsyncIterator[bytes], *, replace: bool) -> None:
        """Load a dump into the database."""


_DUMPERS: dict[str, Dumper] = {"mysql": mysql, "mariadb": mysql, "postgresql": postgresql, "sqlite": sqlite}


def dumper_for(url: URL) -> Dumper:
    """Return the dumper for this database.

    Raises:
        BackupFailed: this kind of database is not supported.
    """
    name = url.get_backend_name()
    if name not in _DUMPERS:
        raise BackupFailed(f"A {name} database cannot be backed up; supported are {', '.join(sorted(_DUMPERS))}.")
    return _DUMPERS[name]
