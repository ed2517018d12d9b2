"""Send mails from templates, as text and HTML. Call this only in tasks: the calls wait for the mail server."""

import asyncio
import functools
from email.errors import HeaderParseError
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded

from app.core.config.application import app_settings
from app.core.mail_address import ascii_address
from app.features.email.config import email_settings
from app.features.email.smtp import MailError, TemporaryMailError, send_message
from app.worker.typing import TaskOptions

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["MAIL_TASK", "EmailService", "MailError", "TemporaryMailError", "deliver", "email_service", "send_email"]

MAIL_TASK: TaskOptions = {
    "queue_name": "high",
    # Mails are private and codes give access to accounts, so Flower must not show them.
    "redact_arguments": True,
    # SoftTimeLimitExceeded: a mail server that responds slowly at every step.
    "autoretry_for": (TemporaryMailError, SoftTimeLimitExceeded),
    # Up to half an hour in total: the lifetime of a code, and enough for servers that greylist unknown senders.
    "max_retries": 10,
    "retry_backoff": 2,
    "retry_backoff_max": 600,
    "retry_jitter": True,
}
"""Options of a task that sends a mail: `@celery_app.task(name=…, **MAIL_TASK)`."""

_FOLDER = Path(__file__).resolve().parent


@functools.cache
def _templates() -> "Environment":
    # API, beat and workers import this module to name its tasks; only a worker that sends a mail needs Jinja (20 ms, 4 MB).
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape  # noqa: PLC0415

    return Environment(
        # The second is where releases before 0.5.0 had them: those that a project added stay there.
        loader=FileSystemLoader([_FOLDER / "templates", _FOLDER.parents[1] / "templates" / "email"]),
        undefined=StrictUndefined,
        # Escaping would be visible in the plain text.
        autoescape=select_autoescape(["html"]),
        keep_trailing_newline=True,
    )


class EmailService:
    """Render mails from the templates in `app/features/email/templates/` and send them.

    A template is a `.txt` file and, optionally, an `.html` file of the same name. Both can use `app_name`.
    """

    def render(self, template: str, **context: object) -> str:
        """Return the plain text of `template`, which is named without a file extension.

        Raises:
            jinja2.TemplateNotFound: the template does not exist.
            jinja2.UndefinedError: the template needs a value that is missing.
        """
        return _templates().get_template(f"{template}.txt").render(app_name=app_settings.name, **context)

    def render_html(self, template: str, **context: object) -> str | None:
        """Return the HTML of `template`, or None if it has only plain text; raise UndefinedError as `render` does."""
        from jinja2 import TemplateNotFound  # noqa: PLC0415 - see _templates

        try:
            found = _templates().get_template(f"{template}.html")
        except TemplateNotFound:
            return None
        return found.render(app_name=app_settings.name, **context)

    async def deliver(self, subject: str, recipient: str, template: str, **context: object) -> None:
        """Render and send a mail in an `async def` task; raise the errors of `render` and the function `deliver`."""
        text, html = self.render(template, **context), self.render_html(template, **context)
        await deliver(recipient, subject, text, html)

    def send_email(self, subject: str, recipient: str, template: str, **context: object) -> None:
        """Render and send a mail in a `def` task; raise the errors of `deliver`."""
        asyncio.run(self.deliver(subject, recipient, template, **context))


email_service = EmailService()


async def deliver(recipient: str, subject: str, body: str, html: str | None = None) -> None:
    """Send a mail as text, and as HTML if given; return when the mail server has accepted it.

    Raises:
        TemporaryMailError: a later attempt may succeed.
        MailError: the server rejected the mail, or an address or the subject is invalid.
    """
    await send_message(_message(recipient, subject, body, html))


def send_email(recipient: str, subject: str, body: str, html: str | None = None) -> None:
    """Send a mail in a `def` task; raise the errors of `deliver`."""
    asyncio.run(deliver(recipient, subject, body, html))


def _message(recipient: str, subject: str, body: str, html: str | None) -> EmailMessage:
    # With aiosmtplib, which is imported to send it, 15 ms that only a worker that sends a mail needs.
    from email.headerregistry import Address  # noqa: PLC0415

    message = EmailMessage()
    try:
        sender = ascii_address(email_settings.from_email)
        message["From"] = Address(email_settings.from_name, addr_spec=sender)
        message["To"] = Address(addr_spec=ascii_address(recipient))
        message["Subject"] = subject
    # The address parser also raises IndexError for truncated input.
    except (ValueError, IndexError, HeaderParseError) as error:
        raise MailError(f"invalid address or subject: {error}") from error
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message.set_content(body)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message
