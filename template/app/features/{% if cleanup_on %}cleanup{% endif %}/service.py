"""Find tables with expired rows and delete those rows."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, delete, select

from app.core.database import matched_rows, session_scope
from app.models import Base, load_models

BATCH = 1000
"""How many rows a transaction deletes; a larger one would hold its locks for long."""


def expiring_tables() -> list[Table]:
    """Return the tables with `{"info": {"expires": True}}`, whose rows are deleted after their `expires_at`."""
    load_models()
    return [table for table in Base.metadata.sorted_tables if table.info.get("expires")]


async def delete_expired(table: Table) -> int:
    """Delete the rows that have expired by now, in batches, and return how many."""
    expired: Any = table.c.expires_at < datetime.now(UTC)
    oldest = select(table.c.id).where(expired).order_by(table.c.expires_at).limit(BATCH)
    total = 0
    while True:
        async with session_scope() as db:
            ids = list(await db.scalars(oldest))
            # Check again that they have expired: a login may have been refreshed meanwhile.
            total += await matched_rows(db, delete(table).where(table.c.id.in_(ids), expired)) if ids else 0
        if len(ids) < BATCH:
            return total
