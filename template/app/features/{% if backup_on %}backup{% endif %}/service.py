"""Backups of a database in the storage: `backups/<database>_<UTC time>.<sql|db>.gz` and its checksum.

The checksum is written last. A backup without one is incomplete and is never restored.
"""

import asyncio
import hashlib
import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import obstore
import structlog
from sqlalchemy import Connection, inspect
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.core.database import make_folder
from app.features.backup.config import backup_settings
from app.features.backup.dump import dumper_for
from app.features.backup.errors import BackupFailed
from app.features.storage.service import checked, store

FOLDER = "backups"
_CHECKSUM = ".sha256"
_MOMENT = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(r"(?P<database>\w+)_(?P<moment>\d{8}T\d{6}\.\d{6}Z)\.(sql|db)\.gz")
_CHUNK = 1024 * 1024
# zlib's largest window; adding 16 selects the gzip format.
_GZIP = zlib.MAX_WBITS | 16

_logger = structlog.get_logger(__name__)


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


@dataclass(frozen=True)
class Backup:
    """A backup in the storage; `size` is in bytes, compressed."""

    name: str
    database: str
    made_at: datetime
    size: int
    complete: bool = True


async def create_backup(url: URL) -> Backup:
    """Write a compressed backup of the database to the storage, streamed in chunks.

    Raises:
        BackupFailed: the database or its program fails; nothing is stored.
    """
    now = datetime.now(UTC)
    # The microseconds make the names of concurrent backups unique.
    dumper = dumper_for(url)
    name = f"{_short_name(url)}_{now.strftime(_MOMENT)}.{dumper.SUFFIX}.gz"
    path = checked(FOLDER, name)
    digest = hashlib.sha256()
    async with dumper.dump(url) as content:
        await obstore.put_async(store(), path, _compressed(content, digest), max_concurrency=2)
    await obstore.put_async(store(), path + _CHECKSUM, f"{digest.hexdigest()}  {name}\n".encode())
    size = (await obstore.head_async(store(), path))["size"]
    _logger.info("backup_created", name=name, size=size)
    return Backup(name, _short_name(url), now, size)


async def list_backups() -> list[Backup]:
    """Return all complete backups in the storage, of any database, the newest first."""
    return [backup for backup in await _stored() if backup.complete]


async def delete_old_backups(database: str) -> list[str]:
    """Delete the database's backups that are older than BACKUP_RETENTION_DAYS and return their names.

    Keeps the newest complete backup, whatever its age. Old incomplete backups are deleted too.
    """
    limit = datetime.now(UTC) - timedelta(days=backup_settings.retention_days)
    own = [backup for backup in await _stored() if backup.database == database]
    newest = next((backup for backup in own if backup.complete), None)
    old = [backup for backup in own if backup.made_at < limit and backup is not newest]
    for backup in old:
        path = checked(FOLDER, backup.name)
        # The checksum first: if this is interrupted, the rest counts as incomplete and is deleted the next time.
        for part in (path + _CHECKSUM, path):
            if backup.complete or part == path:
                await obstore.delete_async(store(), part)
        _logger.info("backup_deleted", name=backup.name)
    return [backup.name for backup in old]


async def restore_backup(name: str, url: URL, *, force: bool = False) -> None:
    """Verify the checksum of a backup and load it into the database.

    Args:
        name: the name from `list_backups`.
        url: an existing, empty database.
        force: delete everything in the database first.

    Raises:
        BackupFailed: the backup does not exist or is damaged, or the database is not empty or fails.
    """
    if name not in {backup.name for backup in await list_backups()}:
        raise BackupFailed(f"There is no backup {name[:200]!r} in the storage; `list` prints the names.")
    dumper = dumper_for(url)
    if not name.endswith(f".{dumper.SUFFIX}.gz"):
        raise BackupFailed(f"{name} is a backup of another kind of database.")
    path = checked(FOLDER, name)
    await _verify(path)
    tables = await _tables(url)
    if tables and not force:
        raise BackupFailed(
            f"The database {url} is not empty: it has {len(tables)} tables, such as {tables[0]}. "
            "Set DATABASE_URL to an empty one, or delete everything in this one with --force."
        )
    await dumper.load(url, _decompressed(path), replace=force)
    _logger.info("backup_restored", name=name)


def _short_name(url: URL) -> str:
    """Return the name of the database (of an SQLite file, its stem) as a valid part of a file name."""
    return re.sub(r"\W+", "_", Path(url.database or "").stem, flags=re.ASCII).strip("_")[:60] or "database"


async def _stored() -> list[Backup]:
    sizes: dict[str, int] = {}
    async for chunk in obstore.list(store(), FOLDER, chunk_size=1000):
        sizes |= {meta["path"].rpartition("/")[2]: meta["size"] for meta in chunk}
    found = []
    for name, size in sizes.items():
        parts = _NAME.fullmatch(name)
        if parts:
            made_at = datetime.strptime(parts["moment"], _MOMENT).replace(tzinfo=UTC)
            found.append(Backup(name, parts["database"], made_at, size, name + _CHECKSUM in sizes))
    return sorted(found, key=lambda backup: backup.made_at, reverse=True)


async def _compressed(content: AsyncIterator[bytes], digest: _Hash) -> AsyncIterator[bytes]:
    compressor = zlib.compressobj(wbits=_GZIP)
    async for chunk in content:
        # In a thread, because the event loop may run other tasks.
        piece = await asyncio.to_thread(compressor.compress, chunk)
        if piece:
            digest.update(piece)
            yield piece
    piece = compressor.flush()
    digest.update(piece)
    yield piece


async def _decompressed(path: str) -> AsyncIterator[bytes]:
    decompressor = zlib.decompressobj(wbits=_GZIP)
    async for chunk in await _read(path):
        # In chunks: a small compressed file may decompress to a very large one.
        piece = await asyncio.to_thread(decompressor.decompress, bytes(chunk), _CHUNK)
        while piece:
            yield piece
            piece = await asyncio.to_thread(decompressor.decompress, decompressor.unconsumed_tail, _CHUNK)
    if not decompressor.eof:
        raise BackupFailed(f"{path} is truncated; restore another backup.")


async def _read(path: str) -> AsyncIterator[Any]:
    found: Any = await obstore.get_async(store(), path)
    stream: AsyncIterator[Any] = found.stream(min_chunk_size=_CHUNK)
    return stream


async def _verify(path: str) -> None:
    written = bytes(await (await obstore.get_async(store(), path + _CHECKSUM)).bytes_async())
    digest = hashlib.sha256()
    async for chunk in await _read(path):
        digest.update(chunk)
    if digest.hexdigest().encode() != written.partition(b" ")[0]:
        raise BackupFailed(f"{path} is damaged: its checksum does not match. Restore another backup.")


async def _tables(url: URL) -> list[str]:
    make_folder(url)
    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_table_names)
    # While connecting, drivers raise exceptions that SQLAlchemy does not wrap.
    except Exception as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise BackupFailed(f"The database {url} is unreachable: {reason or type(error).__name__}") from error
    finally:
        await engine.dispose()


def _table_names(connection: Connection) -> list[str]:
    inspector = inspect(connection)
    schemas: list[str | None] = [None]
    if connection.dialect.name == "postgresql":
        schemas = [schema for schema in inspector.get_schema_names() if schema != "information_schema"]
    return [
        name for schema in schemas for name in (*inspector.get_table_names(schema), *inspector.get_view_names(schema))
    ]
