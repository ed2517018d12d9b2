# app/tasks/notification_task.py
from app.core.celery import celery_app
from app.services.pasted import push_service

@celery_app.task(name="send_push_notification")
def send_push_notification(user_id: int, title: str, message: str):
    """Send push notification"""
    # Send to notification service
    result = push_service.send(
        user_id=user_id,
        title=title,
        message=message
    )
    return result

@celery_app.task(name="send_bulk_notifications")
def send_bulk_notifications(user_ids: list, title: str, message: str):
    """Send notifications to multiple users"""
    results = []
    for user_id in user_ids:
        task = send_push_notification.delay(user_id, title, message)
        results.append(task.id)
    return {"queued": len(results), "task_ids": results}
