"""The audit check of mails."""

from collections.abc import AsyncIterator

from app.core.audit import Finding, problem
from app.core.config.base import is_local
from app.features.email.config import email_settings


async def email_findings() -> AsyncIterator[Finding]:
    """Check that the mail server and the sender's address are real ones."""
    if is_local(email_settings.host) or _is_example(email_settings.host):
        yield problem("email", "EMAIL_HOST is this machine or an example; set it to your mail server.")
    elif _is_example(email_settings.from_email.rpartition("@")[2]):
        yield problem("email", "EMAIL_FROM_EMAIL is an example; set an address that your mail server accepts.")
    else:
        yield Finding("ok", "email", f"mails are sent through {email_settings.host}")


def _is_example(host: str) -> bool:
    return f".{host}".endswith((".example.com", ".example.org", ".example.net"))
