from datetime import datetime

from app.core.celery import celery_app, with_db_init
from app.core.database import get_db
from app.features.accounts.models import User

@celery_app.task
@with_db_init
def update_user_stats(user_id: int):
    """Update user statistics"""
    async def _update():
        async for db in get_db():
            user = await db.get(User, user_id)
            user.last_activity = datetime.utcnow()
            await db.commit()
    
    import asyncio
    asyncio.run(_update())
