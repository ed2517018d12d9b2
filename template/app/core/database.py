"""Database sessions for `async` code on any event loop.

A connection belongs to the event loop and the process that opened it. A loop that called `open_database` (the API's, a
worker process's) therefore has its own pool. On any other loop, such as in a task that calls `asyncio.run`, each
session opens and closes a connection.
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
# One pooled engine per loop. The engine under None has no pool and keeps no connection, so any loop can use it.
_engines: dict[asyncio.AbstractEventLoop | None, AsyncEngine] = {}
_pid = os.getpid()
# A fork inherits the parent's engines. Keep a reference: garbage collection would close the parent's connections.
_inherited: list[dict[asyncio.AbstractEventLoop | None, AsyncEngine]] = []


def make_folder(url: URL) -> None:
    """Create the folder of an SQLite database's file if it is missing."""
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)


async def open_database() -> None:
    """Create a connection pool for the running event loop; `close_database` closes it."""
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
    """Run a query; raise the driver's exception if the database is unreachable."""
    async with _session() as session:
        await session.execute(text("SELECT 1"))


async def get_db() -> AsyncGenerator[AsyncSession]:
    """Yield a session: `Depends(get_db)` in a route, `async for db in get_db()` elsewhere. Does not commit."""
    async with _session() as session:
        yield session


@asynccontextmanager
async def session_scope() -> AsyncIterator[AsyncSession]:
    """Yield a session that is committed at the end of the block, or rolled back if the block raises."""
    async with _session() as session:
        yield session
        await session.commit()


async def matched_rows(db: AsyncSession, statement: UpdateBase) -> int:
    """Run an UPDATE or DELETE and return how many rows it matched. Does not refresh objects that are already loaded."""
    result = await db.execute(statement, execution_options={"synchronize_session": False})
    return cast("CursorResult[Any]", result).rowcount


def _session() -> AsyncSession:
    # Reading an expired attribute after a commit would run a query, which `async` code cannot do implicitly.
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
    # Hide the values in errors: they end up in logs and task results, and may be personal data.
    engine = create_async_engine(url, echo=config.echo, hide_parameters=not config.echo, **options)
    if is_sqlite:
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # WAL lets readers and the writer work at the same time; busy_timeout makes writers wait for each other.
    cursor.execute("PRAGMA busy_timeout = 10000")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
