# app/tasks/cleanup_task.py
from app.core.celery import celery_app, with_db_init
from app.core.database import get_db
from app.features.accounts.models import Session
from datetime import datetime, timedelta
from sqlalchemy import delete

@celery_app.task(name="cleanup_old_sessions")
@with_db_init
def cleanup_old_sessions():
    """Delete expired sessions"""
    cutoff_date = datetime.utcnow() - timedelta(days=30)
    
    async def _cleanup():
        async for db in get_db():
            result = await db.execute(
                delete(Session).where(Session.created_at < cutoff_date)
            )
            await db.commit()
            return result.rowcount
    
    import asyncio
    deleted = asyncio.run(_cleanup())
    
    return {"deleted": deleted}
