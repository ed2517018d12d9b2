"""Alembic's environment: connect to the application's database and run the revisions."""

import asyncio
import sys
from logging.config import fileConfig
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import AddColumnOp, CreateForeignKeyOp, CreateTableOp, MigrationScript, OpContainer
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.core.config.database import database_settings
from app.core.database import make_folder
from app.models import Base, UtcDateTime, load_models

load_models()

TEMPLATE_TABLES = {"account_codes", "account_registrations", "once_keys", "outbox_messages", "sessions", "users"}
"""All tables in the revisions of the template, including those of features that this project does not have."""


def referenced_tables(operations: OpContainer) -> set[str]:
    """Return the names of the tables that the foreign keys of these operations refer to."""
    tables: set[str] = set()
    for operation in operations.ops:
        if isinstance(operation, CreateTableOp):
            tables |= {key.target_fullname.rpartition(".")[0] for key in operation.to_table().foreign_keys}
        elif isinstance(operation, AddColumnOp):
            tables |= {key.target_fullname.rpartition(".")[0] for key in operation.column.foreign_keys}
        elif isinstance(operation, CreateForeignKeyOp):
            tables.add(operation.referent_table)
        elif isinstance(operation, OpContainer):
            tables |= referenced_tables(operation)
    return tables


def process_revision(_: object, __: object, directives: list[MigrationScript]) -> None:
    """Let a new revision depend on the revisions that create the template's tables it refers to."""
    script = directives[0]
    if script.upgrade_ops is not None:
        known = Base.metadata.tables
        needed = {known[name].info.get("branch") for name in referenced_tables(script.upgrade_ops) if name in known}
        script.depends_on = sorted(branch for branch in needed if branch) or None


def render_item(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Render `UtcDateTime` by its short name, with its import."""
    if kind == "type" and isinstance(item, UtcDateTime):
        autogen_context.imports.add("from app.models.base import UtcDateTime")
        return "UtcDateTime()"
    return False


def include_object(_: object, name: str | None, kind: str, reflected: bool, compare_to: object) -> bool:
    """Ignore the tables of a feature that was switched off, so that autogenerate does not drop them."""
    unknown = kind == "table" and reflected and compare_to is None
    return not (unknown and name in TEMPLATE_TABLES)


def configure(**where: Any) -> None:
    """Configure Alembic for a connection, or for SQL output without one, and run the revisions."""
    context.configure(
        target_metadata=Base.metadata,
        # SQLite cannot alter most of a table; in batch mode, Alembic copies it.
        render_as_batch=database_settings.sqlalchemy_url.get_backend_name() == "sqlite",
        include_object=include_object,
        render_item=render_item,
        process_revision_directives=process_revision,
        **where,
    )
    with context.begin_transaction():
        context.run_migrations()


def upgrade(connection: Connection) -> None:
    """Run the revisions on a connection."""
    tables = frozenset(inspect(connection).get_table_names())
    # The inspection began a transaction; Alembic must begin its own.
    connection.rollback()
    # A revision can read `tables_before` from `op.get_context().opts`, to find out whether a table is new in this run.
    configure(connection=connection, tables_before=tables)


async def online() -> None:
    """Run the revisions on the configured database."""
    url = database_settings.sqlalchemy_url
    make_folder(url)
    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True)
    try:
        connection = await engine.connect()
    # While connecting, drivers raise their own errors, which SQLAlchemy does not wrap.
    except Exception as error:  # noqa: BLE001
        reason = str(getattr(error, "orig", None) or error or type(error).__name__).splitlines()[0]
        sys.exit(
            f"DATABASE_URL names a database that does not answer: {url}: {reason}\n"
            "Start it and create the database. In development, `make dev` starts a server and applies the revisions."
        )
    try:
        await connection.run_sync(upgrade)
        await connection.commit()
    finally:
        await connection.close()
    await engine.dispose()


if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
if context.is_offline_mode():
    configure(url=database_settings.url.get_secret_value(), literal_binds=True)
else:
    asyncio.run(online())
