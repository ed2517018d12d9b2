"""Two tasks whose runs are counted, and a journal of what becomes of their messages."""

import os
from typing import Any

from celery.signals import after_task_publish, task_failure
from kombu.transport.redis import Channel, QoS
from sqlalchemy import text

from app.core.celery import celery_app, with_db_init
from app.core.database import session_scope

JOURNAL = "/app/data/chaos.journal"
RESTORED = "chaos:restored"

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


def _note(event: str, task_id: str, more: str = "") -> None:
    if task_id.startswith("chaos-"):
        file = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, f"{event} {task_id} {more}\n".encode())
        os.close(file)


@after_task_publish.connect(weak=False)
def _published(headers: dict[str, Any], **_: object) -> None:
    _note("published", headers["id"])


@task_failure.connect(weak=False)
def _failed(task_id: str, exception: BaseException, **_: object) -> None:
    _note("failed", task_id, repr(exception)[:200])


_append, _restore = QoS.append, Channel._do_restore_message


def _registered(self: Any, message: Any, delivery_tag: str) -> None:
    _append(self, message, delivery_tag)
    # After it: the window between pop and register stays as wide as it is.
    _note("registered", message.headers["id"])


def _restored(self: Any, payload: Any, exchange: str, routing_key: str, pipe: Any, leftmost: bool = False) -> None:
    _restore(self, payload, exchange, routing_key, pipe, leftmost)
    # In the transaction that puts it back: counted if and only if that happened.
    pipe.rpush(RESTORED, payload["headers"]["id"])


QoS.append, Channel._do_restore_message = _registered, _restored
