"""An example of a task. This file is yours: change it or delete it; an update does not restore it."""

from app.core.celery import celery_app, with_db_init


@celery_app.task(name="example.database_time")
@with_db_init
async def database_time() -> str:
    """Return the database's current time. Shows that a task can be `async def` and use the database like a route."""
    from sqlalchemy import func, select

    from app.core.database import session_scope

    async with session_scope() as db:
        return str(await db.scalar(select(func.current_timestamp())))
