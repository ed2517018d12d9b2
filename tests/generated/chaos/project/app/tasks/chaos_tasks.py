"""Two tasks whose runs are counted, and a journal of those that fail."""

import os
from typing import Any

from celery.signals import task_failure
from sqlalchemy import text

from app.core.celery import celery_app, with_db_init
from app.core.database import session_scope

JOURNAL = "/app/data/chaos.journal"

# Long enough that a fault finds some of them half done.
_WORK = text("SELECT pg_sleep(0.02)")
_RUN = text("INSERT INTO chaos_runs VALUES (:number)")
_EFFECT_ONCE = text(
    "WITH first AS (INSERT INTO chaos_claims VALUES (:number) ON CONFLICT DO NOTHING RETURNING number) "
    "INSERT INTO chaos_effects SELECT number FROM first"
)
_OPTIONS: dict[str, Any] = {
    "ignore_result": True,
    "autoretry_for": (Exception,),
    "max_retries": 40,
    "default_retry_delay": 3,
}


@celery_app.task(name="chaos.plain", **_OPTIONS)
@with_db_init
async def plain(number: int) -> None:
    """Count a run; a second one counts again."""
    async with session_scope() as db:
        await db.execute(_RUN, {"number": number})
        await db.execute(_WORK)


@celery_app.task(name="chaos.idempotent", **_OPTIONS)
@with_db_init
async def idempotent(number: int) -> None:
    """Count a run, and have an effect the first time only."""
    async with session_scope() as db:
        await db.execute(_RUN, {"number": number})
        await db.execute(_EFFECT_ONCE, {"number": number})
        await db.execute(_WORK)


@task_failure.connect(weak=False)
def _failed(task_id: str, exception: BaseException, **_: object) -> None:
    if task_id.startswith("chaos-"):
        file = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, f"{task_id} {exception!r}"[:300].encode() + b"\n")
        os.close(file)
