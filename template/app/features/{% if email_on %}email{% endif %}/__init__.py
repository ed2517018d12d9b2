"""Send mails: `email_service`, templates and SMTP."""
