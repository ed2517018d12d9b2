"""The dump of a database as a stream, and back: one module for each kind of database."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy.engine import URL

from app.features.backup import mysql, postgresql, sqlite
from app.features.backup.errors import BackupFailed


class Dumper(Protocol):
    """How a kind of database is dumped and loaded; each module's docstrings say what is raised."""

    SUFFIX: str

    def dump(self, url: URL) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Give the database's content as of now, a piece at a time."""

    async def load(self, url: URL, content: AsyncIterator[bytes], *, replace: bool) -> None:
        """Load what `dump` gave."""


_DUMPERS: dict[str, Dumper] = {"mysql": mysql, "mariadb": mysql, "postgresql": postgresql, "sqlite": sqlite}


def dumper_for(url: URL) -> Dumper:
    """Return how this database is dumped.

    Raises:
        BackupFailed: there is no way for its kind.
    """
    name = url.get_backend_name()
    if name not in _DUMPERS:
        raise BackupFailed(f"There is no backup of a {name} database: {', '.join(sorted(_DUMPERS))} can be backed up.")
    return _DUMPERS[name]
