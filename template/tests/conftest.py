"""Servers for the tests, and a clean state for each test.

The tests use embedded servers, or those in TEST_DATABASE_URL and TEST_REDIS_URL, whose data they delete.
"""

import asyncio
import contextlib
import importlib
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from fastapi import FastAPI

from devtools.servers import Servers, embedded_servers

ROOT = Path(__file__).resolve().parent.parent
# Fixtures for the tests of every folder are in the modules called `fixtures`.
pytest_plugins = [f"tests.{path.parent.name}.fixtures" for path in sorted(ROOT.glob("tests/*/fixtures.py"))]
_servers = contextlib.ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers and set their addresses in the environment, before any module of the application is imported."""
    os.environ["ENVIRONMENT"] = "test"
    try:
        groups = importlib.import_module("app.core.config").load_groups()
        uses_redis = any(
            type(group).variable(field) == "REDIS_CONNECTION_URL"
            for group in groups
            for field in type(group).model_fields
        )
    except SystemExit:
        # The settings have printed the problems already.
        raise pytest.UsageError("The settings are invalid; see the lines above.") from None
    finally:
        # The modules must be imported again, with the addresses of the servers.
        for name in [name for name in sys.modules if name == "app" or name.startswith("app.")]:
            del sys.modules[name]
    if config.option.collectonly or config.option.help or _only_distributes(config):
        return
    folder = Path(tempfile.mkdtemp(prefix="tests-"))
    # Not in a hook: a plugin that fails at the end of the run would keep other hooks from running.
    config.add_cleanup(_servers.close)
    _servers.callback(shutil.rmtree, folder)
    defaults = runpy.run_path(str(ROOT / "app" / "core" / "config" / "defaults.py"))
    backend = defaults["DATABASE_URL"].partition("+")[0]
    database = os.environ.get("TEST_DATABASE_URL")
    redis = os.environ.get("TEST_REDIS_URL")
    if backend == "mysql" and not database:
        raise pytest.UsageError(
            "There is no embedded MySQL. Set a database whose data the tests may delete: "
            "TEST_DATABASE_URL=mysql://USER:PASSWORD@127.0.0.1:3306/test"
        )
    servers = _servers.enter_context(
        embedded_servers(
            folder,
            redis=uses_redis and not redis,
            postgres=backend == "postgresql" and not database,
            name="test",
            durable=False,
        )
    )
    os.environ["DATABASE_URL"] = database or servers.database_url or f"sqlite+aiosqlite:///{folder}/test.db"
    if servers.database_programs:
        os.environ["BACKUP_PROGRAMS"] = str(servers.database_programs)
    if uses_redis:
        os.environ.update(_redis_variables(servers, redis))
    # No test may reach a mail server by accident: nothing listens on port 1.
    os.environ.update(EMAIL_HOST="127.0.0.1", EMAIL_PORT="1")
    os.environ["STORAGE_URL"] = os.environ.get("TEST_STORAGE_URL", str(folder / "storage"))
    _upgrade()


def _only_distributes(config: pytest.Config) -> bool:
    """Return whether pytest-xdist runs the tests in other processes, each of which starts its own servers."""
    return bool(getattr(config.option, "numprocesses", None)) and not hasattr(config, "workerinput")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in `e2e` folders, which start processes of the application."""
    for item in items:
        if "e2e" in item.path.relative_to(ROOT).parts:
            item.add_marker("processes")


def _redis_variables(servers: Servers, named: str | None) -> dict[str, str]:
    names = ("REDIS_CONNECTION_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")
    urls = [servers.redis_url(number) for number in range(3)]
    if named:
        base = named.rstrip("/").removesuffix("/0")
        urls = [f"{base}/{number}" for number in range(3)]
    return dict(zip(names, urls, strict=True))


def _upgrade() -> None:
    from alembic import command
    from alembic.config import Config

    try:
        with contextlib.chdir(ROOT):
            command.upgrade(Config("alembic.ini"), "heads")
    except SystemExit as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run `async def` tests on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_state() -> Iterator[None]:
    """Delete all rows and all cached values after each test."""
    yield
    from sqlalchemy import delete

    from app.core.database import session_scope
    from app.models import Base, load_models

    load_models()

    async def empty() -> None:
        async with session_scope() as db:
            for table in reversed(Base.metadata.sorted_tables):
                await db.execute(delete(table))

    asyncio.run(empty())
    cache = os.environ.get("REDIS_CONNECTION_URL")
    if cache:
        import redis

        with redis.Redis.from_url(cache) as client:
            client.flushdb()


@pytest.fixture
def app() -> FastAPI:
    """Return a new application; `app.dependency_overrides` replaces dependencies."""
    from app.main import create_app

    return create_app()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the application, which runs during the test."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as session,
    ):
        yield session
