"""Handing a mail to the mail server."""

from email.message import EmailMessage

import aiosmtplib

from app.features.email.config import email_settings


class MailError(Exception):
    """The mail server refused the mail for good, or the mail cannot be written."""


class TemporaryMailError(Exception):
    """The mail server could not be reached, was too slow, or asked to try again later."""


async def send_message(message: EmailMessage) -> None:
    """Return when the mail server has taken the mail. Its certificate is verified where there is TLS.

    Raises:
        TemporaryMailError: the server is away, took longer than `EMAIL_TIMEOUT` at a step, or answered with a 4xx code.
        MailError: it refused with a 5xx code, or cannot do what the settings ask for.
    """
    config = email_settings
    try:
        await aiosmtplib.send(
            message,
            hostname=config.host,
            port=config.port,
            username=config.host_user or None,
            password=config.host_password.get_secret_value() if config.host_user else None,
            use_tls=config.use_ssl,
            start_tls=config.use_tls,
            timeout=config.timeout,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        refused = error.recipients[0]
        raise _classified(refused.code, refused.message) from error
    except aiosmtplib.SMTPResponseException as error:
        raise _classified(error.code, error.message) from error
    except OSError as error:
        raise TemporaryMailError(f"{config.host}:{config.port}: {error}") from error
    except aiosmtplib.SMTPException as error:
        raise MailError(str(error)) from error


def _classified(code: int, reason: str) -> MailError | TemporaryMailError:
    # https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1: 4yz is transient, 5yz is permanent.
    kind = TemporaryMailError if 400 <= code < 500 else MailError
    return kind(f"{code} {reason}")
