"""The audit check of mails."""

import pytest

from app.features.email.audit import email_findings
from app.features.email.config import email_settings


@pytest.mark.parametrize(
    ("host", "sender", "state"),
    [
        ("localhost", "we@firm.test", "problem"),
        ("smtp.example.com", "we@firm.test", "problem"),
        ("smtp.firm.test", "we@example.com", "problem"),
        ("smtp.firm.test", "we@firm.test", "ok"),
    ],
)
async def test_an_example_server_or_sender_is_a_problem(
    host: str, sender: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(email_settings, "host", host)
    monkeypatch.setattr(email_settings, "from_email", sender)
    assert [finding.state async for finding in email_findings()] == [state]
