"""Back up the tests' database and restore it into another one."""

import asyncio
import gzip
import hashlib
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from celery.schedules import crontab
from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, Text, inspect, literal_column, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.core.celery import celery_app
from app.core.config.database import database_settings
from app.features.backup.config import backup_settings
from app.features.backup.dump import dumper_for
from app.features.backup.errors import BackupFailed
from app.features.backup.service import create_backup, delete_old_backups, list_backups, restore_backup
from app.features.storage.service import store
from app.models import Base, UtcDateTime
from app.tasks.backup_task import backup_database
from tests import ROOT

SOURCE = database_settings.sqlalchemy_url
DUMPER = dumper_for(SOURCE)

THINGS = Table(
    "Things to keep",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(100)),
    Column("note", Text),
    Column("content", LargeBinary(70_000)),
    Column("at", UtcDateTime),
    mysql_charset="utf8mb4",
)
ROWS: list[dict[str, Any]] = [
    {"name": "Grüße, 日本 🎉", "note": "two\nlines\ttab \\. \\N 'a' \"b\" -- ; $$", "content": bytes(range(256))},
    {"name": None, "note": "", "content": b"", "at": datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)},
    {"name": "big", "note": "x" * 60_000, "content": bytes(range(256)) * 256, "at": None},
]


def run_on(url: URL, function: Any, **options: Any) -> Any:
    """Call a function with a new synchronous connection and return its result."""

    async def run() -> Any:
        engine = create_async_engine(url, poolclass=NullPool, **options)
        async with engine.connect() as connection:
            result = await connection.run_sync(function)
            await connection.commit()
        await engine.dispose()
        return result

    return asyncio.run(run())


def execute(statement: str, url: URL = SOURCE) -> None:
    """Run a statement outside a transaction."""
    run_on(url, lambda connection: connection.execute(text(statement)), isolation_level="AUTOCOMMIT")


def content_of(url: URL) -> dict[str, list[Any]]:
    """Return the rows of every table."""

    def read(connection: Any) -> dict[str, list[Any]]:
        found = {}
        for name in inspect(connection).get_table_names():
            table = Table(name, MetaData(), autoload_with=connection)
            found[name] = sorted((tuple(row) for row in connection.execute(table.select())), key=repr)
        return found

    return dict(run_on(url, read))


@pytest.fixture
def filled() -> Iterator[dict[str, list[Any]]]:
    """Fill a table of the tests' database; yield the content of all tables."""

    def fill(connection: Any) -> None:
        for row in ROWS:
            values = dict(row)
            if SOURCE.get_backend_name() in {"mysql", "mariadb"}:
                # aiomysql cannot pass bytes with recent versions of PyMySQL.
                values["content"] = literal_column(f"X'{row['content'].hex()}'")
            connection.execute(THINGS.insert().values(**values))

    run_on(SOURCE, THINGS.create)
    try:
        run_on(SOURCE, fill)
        yield content_of(SOURCE)
    finally:
        run_on(SOURCE, THINGS.drop)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[URL]:
    """Yield an empty database on the same server."""
    if SOURCE.get_backend_name() == "sqlite":
        yield SOURCE.set(database=str(tmp_path / "empty.db"))
        return
    name = f"empty_{secrets.token_hex(4)}"
    execute(f"CREATE DATABASE {name}")
    yield SOURCE.set(database=name)
    execute(f"DROP DATABASE {name}")


@pytest.fixture(autouse=True)
def clean_storage() -> Iterator[None]:
    """Delete all backups after the test."""
    yield
    for chunk in obstore.list(store(), "backups"):
        obstore.delete(store(), [meta["path"] for meta in chunk])


def create() -> str:
    """Back up the tests' database and return the backup's name."""
    return asyncio.run(create_backup(SOURCE)).name


def stored() -> set[str]:
    """Return the names of all stored files."""
    return {meta["path"].removeprefix("backups/") for meta in obstore.list(store(), "backups").collect()}


def test_a_backup_can_be_restored_into_an_empty_database(filled: dict[str, list[Any]], empty: URL) -> None:
    name = create()
    asyncio.run(restore_backup(name, empty))
    restored = content_of(empty)
    assert restored == filled
    assert len(restored[THINGS.name]) == len(ROWS)
    if "users" in Base.metadata.tables:
        assert restored["alembic_version"], "the next upgrade needs the current revision"


def test_a_backup_is_compressed_and_has_a_checksum_for_sha256sum(filled: dict[str, list[Any]]) -> None:
    name = create()
    assert name.startswith(f"{Path(SOURCE.database or '').stem}_20")
    assert name.endswith(f"Z.{DUMPER.SUFFIX}.gz")
    assert stored() == {name, f"{name}.sha256"}
    content = bytes(obstore.get(store(), f"backups/{name}").bytes())
    checksum = bytes(obstore.get(store(), f"backups/{name}.sha256").bytes()).decode()
    assert checksum == f"{hashlib.sha256(content).hexdigest()}  {name}\n"
    assert THINGS.name.encode() in gzip.decompress(content)
    (listed,) = asyncio.run(list_backups())
    assert (listed.name, listed.size) == (name, len(content))


def test_a_backup_is_not_restored_into_a_database_that_is_not_empty(filled: dict[str, list[Any]], empty: URL) -> None:
    execute("CREATE TABLE mine (id INTEGER PRIMARY KEY)", empty)
    execute("INSERT INTO mine VALUES (7)", empty)
    name = create()
    with pytest.raises(BackupFailed, match=r"not empty: it has 1 tables, such as mine.*--force"):
        asyncio.run(restore_backup(name, empty))
    assert content_of(empty) == {"mine": [(7,)]}


def test_force_replaces_everything(filled: dict[str, list[Any]], empty: URL) -> None:
    execute("CREATE TABLE mine (id INTEGER PRIMARY KEY)", empty)
    execute("CREATE VIEW theirs AS SELECT * FROM mine", empty)
    name = create()
    for _ in range(2):
        asyncio.run(restore_backup(name, empty, force=True))
        assert content_of(empty) == filled
    assert run_on(empty, lambda connection: inspect(connection).get_view_names()) == []


@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_damaged_backup_is_not_restored(damage: str, filled: dict[str, list[Any]], empty: URL) -> None:
    name = create()
    content = bytearray(obstore.get(store(), f"backups/{name}").bytes())
    if damage == "cut":
        del content[-10:]
    else:
        content[len(content) // 2] ^= 1
    obstore.put(store(), f"backups/{name}", bytes(content))
    with pytest.raises(BackupFailed, match="is damaged: its checksum"):
        asyncio.run(restore_backup(name, empty))
    assert content_of(empty) == {}


def test_an_incomplete_backup_is_not_listed_or_restored(filled: dict[str, list[Any]], empty: URL) -> None:
    name = create()
    obstore.delete(store(), f"backups/{name}.sha256")
    assert asyncio.run(list_backups()) == []
    # An empty checksum means that the backup is damaged.
    broken = create()
    obstore.put(store(), f"backups/{broken}.sha256", b"")
    with pytest.raises(BackupFailed, match="is damaged"):
        asyncio.run(restore_backup(broken, empty))
    for wanted in (name, "other.sql.gz", "../x"):
        with pytest.raises(BackupFailed, match="There is no backup"):
            asyncio.run(restore_backup(wanted, empty))


def test_an_interrupted_restore_changes_nothing(filled: dict[str, list[Any]], empty: URL) -> None:
    if SOURCE.get_backend_name() in {"mysql", "mariadb"}:
        pytest.skip("MySQL commits at each DDL statement")
    execute("CREATE TABLE mine (id INTEGER PRIMARY KEY)", empty)
    content = gzip.decompress(bytes(obstore.get(store(), f"backups/{create()}").bytes()))

    async def broken() -> AsyncIterator[bytes]:
        yield content[: len(content) // 2]
        raise ConnectionResetError("the storage is unreachable")

    with pytest.raises(ConnectionResetError, match="the storage is unreachable"):
        asyncio.run(DUMPER.load(empty, broken(), replace=True))
    assert content_of(empty) == {"mine": []}


def test_two_concurrent_backups_have_different_names(filled: dict[str, list[Any]], empty: URL) -> None:
    async def both() -> set[str]:
        made = await asyncio.gather(create_backup(SOURCE), create_backup(SOURCE))
        return {backup.name for backup in made}

    names = asyncio.run(both())
    assert len(names) == 2
    assert {backup.name for backup in asyncio.run(list_backups())} == names
    for name in names:
        asyncio.run(restore_backup(name, empty, force=True))
        assert content_of(empty) == filled


def _put(database: str, days: float, *, complete: bool = True) -> str:
    moment = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y%m%dT%H%M%S.%fZ")
    name = f"{database}_{moment}.{DUMPER.SUFFIX}.gz"
    obstore.put(store(), f"backups/{name}", b"x")
    if complete:
        obstore.put(store(), f"backups/{name}.sha256", b"x")
    return name


def test_old_backups_are_deleted_except_the_newest_complete_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_settings, "retention_days", 10)
    others = _put("other", 50), _put("app_test", 50)
    older, newest = _put("test", 40), _put("test", 20)
    broken = _put("test", 15, complete=False)
    fresh = _put("test", 1, complete=False)
    assert set(asyncio.run(delete_old_backups("test"))) == {older, broken}
    assert stored() == {fresh, newest, f"{newest}.sha256", *others, *(f"{name}.sha256" for name in others)}
    kept, edge = _put("test", 9.9), _put("test", 10.1)
    assert set(asyncio.run(delete_old_backups("test"))) == {newest, edge}
    assert kept in stored()


def _missing() -> URL:
    if SOURCE.get_backend_name() == "sqlite":
        return SOURCE.set(database=f"{SOURCE.database}.missing")
    return SOURCE.set(database="missing_database")


def test_a_missing_database_is_reported_and_leaves_no_backup() -> None:
    with pytest.raises(BackupFailed, match=r"missing"):
        asyncio.run(create_backup(_missing()))
    assert stored() == set()


def _command(*arguments: str, url: URL = SOURCE) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)}
    return subprocess.run(
        [sys.executable, "-m", "app.features.backup", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.processes
def test_the_command_creates_lists_and_restores(filled: dict[str, list[Any]], empty: URL) -> None:
    created = _command("create")
    assert created.returncode == 0, created.stderr
    name = created.stdout.strip()
    assert name in _command("list").stdout
    restored = _command("restore", name, url=empty)
    assert restored.returncode == 0, restored.stderr
    assert content_of(empty) == filled
    again = _command("restore", name, url=empty)
    assert (again.returncode, again.stdout) == (1, "")
    assert "is not empty" in again.stderr
    assert "Traceback" not in again.stderr
    assert _command("restore", name, "--force", url=empty).returncode == 0


def test_the_command_skips_the_shutdown_of_the_interpreter() -> None:
    # A thread of obstore that still releases an object would abort the shutdown in one of three runs.
    code = "import atexit, runpy, sys; atexit.register(print, 'shutdown'); "
    code += "runpy.run_module('app.features.backup', run_name='__main__')"
    command = [sys.executable, "-c", code, "restore", "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("There is no backup 'none' in the storage; `list` prints")


@pytest.mark.parametrize("command", ["list", "create"])
def test_an_unreachable_storage_is_reported_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STORAGE_URL", str(tmp_path / "file" / "folder"))
    done = _command(command)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"STORAGE_URL={tmp_path}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_backup_is_scheduled_every_night() -> None:
    entry = celery_app.conf.beat_schedule["backup-daily"]
    assert entry["task"] == backup_database.name == "backup_database"
    assert entry["schedule"] == crontab(hour=3, minute=0)
    assert 20 * 3600 <= entry["options"]["expires"] < 24 * 3600, (
        "a late backup is better than none, but only one at a time"
    )
    assert celery_app.amqp.router.route({}, backup_database.name, task_type=backup_database)["queue"].name == "long"
