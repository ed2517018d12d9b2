"""The database, for `async` code on any event loop.

A connection belongs to the event loop that opened it and to the process that did. A loop on which `open_database` was called
(the API's, a worker process's) therefore has a pool of its own; everywhere else, such as inside a task that calls
`asyncio.run` itself, each session opens a connection and closes it.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, CursorResult, UpdateBase, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from app.core.config.database import database_settings

_lock = threading.Lock()
# One pooled engine a loop; the one without a pool, under None, serves any loop, as it keeps no connection.
_engines: dict[asyncio.AbstractEventLoop | None, AsyncEngine] = {}
_pid = os.getpid()
# A fork inherits the parent's engines. They are kept, unused: collecting them would close the parent's connections.
_inherited: list[dict[asyncio.AbstractEventLoop | None, AsyncEngine]] = []


def make_folder(url: URL) -> None:
    """Make the folder of an SQLite database's file, if it is missing."""
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)


async def open_database() -> None:
    """Keep a pool of connections for the running event loop, until `close_database` is called on it."""
    loop = asyncio.get_running_loop()
    with _lock:
        known = _current_engines()
        if loop not in known:
            known[loop] = _new_engine(pooled=True)


async def close_database() -> None:
    """Close the running event loop's connections."""
    with _lock:
        engine = _current_engines().pop(asyncio.get_running_loop(), None)
    if engine is not None:
        await engine.dispose()


async def ping_database() -> None:
    """Return when the database answers a query; raises what its driver raises where it does not."""
    async with _session() as session:
        await session.execute(text("SELECT 1"))


async def get_db() -> AsyncGenerator[AsyncSession]:
    """Yield a session: `Depends(get_db)` in a route, `async for db in get_db()` elsewhere. What is not committed is undone."""
    async with _session() as session:
        yield session


@asynccontextmanager
async def session_scope() -> AsyncIterator[AsyncSession]:
    """Give a session that is committed at the end, or undone if the block raises."""
    async with _session() as session:
        yield session
        await session.commit()


async def matched_rows(db: AsyncSession, statement: UpdateBase) -> int:
    """Run an UPDATE or DELETE and return how many rows it matched; objects that are loaded already stay as they are."""
    result = await db.execute(statement, execution_options={"synchronize_session": False})
    return cast("CursorResult[Any]", result).rowcount


def _session() -> AsyncSession:
    # Objects stay readable after a commit: reading an expired attribute would be a query, which `async` code must await.
    return AsyncSession(_engine(), expire_on_commit=False)


def _engine() -> AsyncEngine:
    loop = asyncio.get_running_loop()
    with _lock:
        known = _current_engines()
        engine = known.get(loop) or known.get(None)
        if engine is None:
            engine = known[None] = _new_engine(pooled=False)
    return engine


def _current_engines() -> dict[asyncio.AbstractEventLoop | None, AsyncEngine]:
    global _engines, _pid
    if _pid != os.getpid():
        _inherited.append(_engines)
        _engines, _pid = {}, os.getpid()
    return _engines


def _new_engine(*, pooled: bool) -> AsyncEngine:
    config = database_settings
    url = config.sqlalchemy_url
    options: dict[str, Any] = {"poolclass": NullPool}
    is_sqlite = url.get_backend_name() == "sqlite"
    if pooled:
        options = {
            "pool_size": config.pool_size,
            "max_overflow": config.pool_max_overflow,
            "pool_timeout": config.pool_timeout,
            "pool_pre_ping": config.pool_pre_ping,
        }
    make_folder(url)
    # Errors reach logs and the states of tasks: without the values, which may be personal data.
    engine = create_async_engine(url, echo=config.echo, hide_parameters=not config.echo, **options)
    if is_sqlite:
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # Readers and the one writer do not wait for each other; writers wait for one another instead of failing.
    cursor.execute("PRAGMA busy_timeout = 10000")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
