"""Mails: `email_service`, templates and SMTP."""
