"""An SMTP server on this machine, for tests."""

import asyncio
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller

from devtools.servers import free_port

HANGS = ""
"""An answer that never comes."""


class MailSink:
    """Accepts mails, or answers recipients as it is configured. Runs on the same port until `stop`, and again after `start`.

    Args:
        options: what aiosmtpd's `Controller` takes, such as `tls_context`.
    """

    def __init__(self, **options: Any) -> None:
        self.port = free_port()
        self.answers: list[str] = []
        """For the next recipients, in order; after them each gets `answer`."""
        self.answer = "250 OK"
        self.recipients: list[str] = []
        """Every recipient that was offered, accepted or not."""
        self.mails: list[EmailMessage] = []
        self.accepted: list[str] = []
        """The recipients of `mails`."""
        self.encrypted: list[bool] = []
        """For each of `mails` whether its connection was encrypted."""
        self._options = options
        self.start()

    def start(self) -> None:
        """Listen."""
        # A controller runs once.
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, **self._options)
        self._controller.start()

    def stop(self) -> None:
        """Stop listening."""
        self._controller.stop()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        """Answer a recipient; called by aiosmtpd."""
        self.recipients.append(address)
        answer = self.answers.pop(0) if self.answers else self.answer
        if answer == HANGS:
            await asyncio.Event().wait()
        envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep a mail; called by aiosmtpd."""
        self.mails.append(BytesParser(_class=EmailMessage, policy=default).parsebytes(envelope.content))
        self.accepted += envelope.rcpt_tos
        self.encrypted.append(session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None)
        return "250 OK"
