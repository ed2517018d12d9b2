"""What Alembic runs: the application's database and tables, `alembic upgrade heads`."""

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

TEMPLATE_TABLES = {"account_codes", "account_registrations", "sessions", "users"}
"""All tables of the template's revisions, whether this project has the feature or not."""


def referenced_tables(operations: OpContainer) -> set[str]:
    """Return the names of the tables that these operations' foreign keys point to."""
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
    """Let a new revision that refers to the template's tables wait for the revisions that make them."""
    script = directives[0]
    if script.upgrade_ops is not None:
        known = Base.metadata.tables
        needed = {known[name].info.get("branch") for name in referenced_tables(script.upgrade_ops) if name in known}
        script.depends_on = sorted(branch for branch in needed if branch) or None


def render_item(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Write our own column type by its short name."""
    if kind == "type" and isinstance(item, UtcDateTime):
        autogen_context.imports.add("from app.models.base import UtcDateTime")
        return "UtcDateTime()"
    return False


def include_object(_: object, name: str | None, kind: str, reflected: bool, compare_to: object) -> bool:
    """Leave the tables of a feature that was switched off, and their rows, alone: an update keeps its revisions."""
    unknown = kind == "table" and reflected and compare_to is None
    return not (unknown and name in TEMPLATE_TABLES)


def configure(**where: Any) -> None:
    """Set Alembic up for a connection, or for a dialect without one."""
    context.configure(
        target_metadata=Base.metadata,
        # SQLite cannot alter a table: Alembic then copies it.
        render_as_batch=database_settings.sqlalchemy_url.get_backend_name() == "sqlite",
        include_object=include_object,
        render_item=render_item,
        process_revision_directives=process_revision,
        **where,
    )
    with context.begin_transaction():
        context.run_migrations()


def upgrade(connection: Connection) -> None:
    """Run the migrations on a connection."""
    tables = frozenset(inspect(connection).get_table_names())
    # Reading began a transaction; Alembic begins its own.
    connection.rollback()
    # A revision reads `tables_before` in `op.get_context().opts`, where it matters whether a table is new in this run.
    configure(connection=connection, tables_before=tables)


async def online() -> None:
    """Run the migrations on the database of the settings."""
    url = database_settings.sqlalchemy_url
    make_folder(url)
    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True)
    try:
        connection = await engine.connect()
    # Drivers raise errors of their own while they connect, which SQLAlchemy does not wrap.
    except Exception as error:  # noqa: BLE001
        reason = str(getattr(error, "orig", None) or error or type(error).__name__).splitlines()[0]
        sys.exit(
            f"DATABASE_URL names a database that does not answer: {url}: {reason}\n"
            "Start it and make the database. In development `make dev` starts one, and applies the revisions itself."
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
