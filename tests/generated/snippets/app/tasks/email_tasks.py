# app/tasks/email_tasks.py
from app.core.celery import celery_app
from app.utils.email import email_service

@celery_app.task(name="send_verification_email")
def send_verification_email(email: str, code: str):
    """Send email verification"""
    email_service.send_email(
        subject="Verify Your Email",
        recipient=email,
        template="verification_email",
        code=code
    )

@celery_app.task(name="send_password_reset")
def send_password_reset(email: str, code: str):
    """Send password reset email"""
    email_service.send_email(
        subject="Reset Your Password",
        recipient=email,
        template="reset_password_email",
        code=code
    )
