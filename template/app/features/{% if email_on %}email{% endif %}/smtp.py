"""Send a message to the mail server."""

from email.message import EmailMessage

from app.features.email.config import email_settings


class MailError(Exception):
    """The mail server rejected the mail permanently, or the mail is invalid."""


class TemporaryMailError(Exception):
    """The mail server is unreachable, timed out, or rejected the mail temporarily."""


async def send_message(message: EmailMessage) -> None:
    """Send a message and return when the mail server has accepted it. With TLS, the certificate is verified.

    Raises:
        TemporaryMailError: the server is unreachable, exceeds `EMAIL_TIMEOUT`, or responds with a 4xx code.
        MailError: the server responds with a 5xx code, or does not support what the settings require.
    """
    import aiosmtplib  # noqa: PLC0415 - API, beat and most workers never send a mail

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
        recipient = error.recipients[0]
        raise _error_for(recipient.code, recipient.message) from error
    except aiosmtplib.SMTPResponseException as error:
        raise _error_for(error.code, error.message) from error
    except OSError as error:
        raise TemporaryMailError(f"{config.host}:{config.port}: {error}") from error
    except aiosmtplib.SMTPException as error:
        raise MailError(str(error)) from error


def _error_for(code: int, reason: str) -> MailError | TemporaryMailError:
    # https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1: 4yz is transient, 5yz is permanent.
    kind = TemporaryMailError if 400 <= code < 500 else MailError
    return kind(f"{code} {reason}")
