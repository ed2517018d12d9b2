"""Mails from templates: HTML and text. For tasks: these calls wait for the mail server, so no route makes them."""

import asyncio
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from celery.exceptions import SoftTimeLimitExceeded
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound, select_autoescape

from app.core.config.application import app_settings
from app.core.mail_address import ascii_address
from app.features.email.config import email_settings
from app.features.email.smtp import MailError, TemporaryMailError, send_message
from app.worker.typing import TaskOptions

__all__ = ["MAIL_TASK", "EmailService", "MailError", "TemporaryMailError", "deliver", "email_service", "send_email"]

MAIL_TASK: TaskOptions = {
    "queue_name": "high",
    # Codes open accounts, and mails are private: they must not stand in Flower.
    "redact_arguments": True,
    # A server that takes its time at every step has a later attempt too.
    "autoretry_for": (TemporaryMailError, SoftTimeLimitExceeded),
    # Together up to half an hour: as long as a code is good, and as servers that know no sender yet keep one waiting.
    "max_retries": 10,
    "retry_backoff": 2,
    "retry_backoff_max": 600,
    "retry_jitter": True,
}
"""Options of a task that sends a mail: `@celery_app.task(name=…, **MAIL_TASK)`."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).resolve().parent / "templates"),
    undefined=StrictUndefined,
    # In the texts escaping would show.
    autoescape=select_autoescape(["html"]),
    keep_trailing_newline=True,
)


class EmailService:
    """Writes mails from the templates in `app/templates/email/` and sends them.

    A template is a `.txt` file and, if it is there, an `.html` file of the same name. `app_name` is known in each.
    """

    def render(self, template: str, **context: object) -> str:
        """Return the text of `template`, given without its ending.

        Raises:
            jinja2.TemplateNotFound, jinja2.UndefinedError: no such template, or it needs a value that is not given.
        """
        return _TEMPLATES.get_template(f"{template}.txt").render(app_name=app_settings.name, **context)

    def render_html(self, template: str, **context: object) -> str | None:
        """Return the HTML of `template`, or None where it has a text only; raises what `render` raises."""
        try:
            found = _TEMPLATES.get_template(f"{template}.html")
        except TemplateNotFound:
            return None
        return found.render(app_name=app_settings.name, **context)

    async def deliver(self, subject: str, recipient: str, template: str, **context: object) -> None:
        """Write a mail from `template` and send it, in an `async def` task; raises what `render` and `deliver` raise."""
        text, html = self.render(template, **context), self.render_html(template, **context)
        await deliver(recipient, subject, text, html)

    def send_email(self, subject: str, recipient: str, template: str, **context: object) -> None:
        """Do the same in a `def` task."""
        asyncio.run(self.deliver(subject, recipient, template, **context))


email_service = EmailService()


async def deliver(recipient: str, subject: str, body: str, html: str | None = None) -> None:
    """Send a mail, as text and HTML if that is given, and return when the mail server has taken it.

    Raises:
        TemporaryMailError: trying later makes sense; see `send_message`.
        MailError: it does not, or an address or the subject is malformed.
    """
    await send_message(_message(recipient, subject, body, html))


def send_email(recipient: str, subject: str, body: str, html: str | None = None) -> None:
    """Do what `deliver` does, in a `def` task."""
    asyncio.run(deliver(recipient, subject, body, html))


def _message(recipient: str, subject: str, body: str, html: str | None) -> EmailMessage:
    message = EmailMessage()
    try:
        sender = ascii_address(email_settings.from_email)
        message["From"] = Address(email_settings.from_name, addr_spec=sender)
        message["To"] = Address(addr_spec=ascii_address(recipient))
        message["Subject"] = subject
    # The parser of addresses raises IndexError too, of what ends too early.
    except (ValueError, IndexError, HeaderParseError) as error:
        raise MailError(f"malformed address or subject: {error}") from error
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message.set_content(body)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message
