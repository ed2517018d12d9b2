from app.core.celery import celery_app
from app.utils.email import send_email

@celery_app.task(name="send_email_task")
def send_email_task(recipient: str, subject: str, body: str):
    """Send email asynchronously"""
    # Your email sending logic
    send_email(recipient, subject, body)
    return {"status": "sent", "recipient": recipient}
