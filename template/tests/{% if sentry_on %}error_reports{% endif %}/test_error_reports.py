"""What a failed request reports to Sentry."""

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from app.features.error_reports.config import SentrySettings
from tests import ROOT
from tests.sink import sink

# A route of the application fails; the client sends personal data that must not be reported.
SCRIPT = """
import asyncio, httpx2 as httpx, sentry_sdk
from fastapi import Body
from app.main import app

@app.post("/broken/{number}")
async def broken(number: int, data: dict = Body()):
    person = data["person"]
    raise ValueError("as it should")

async def main():
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"authorization": "Bearer t0ken-of-ada", "cookie": "session=c00kie-of-ada"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        response = await client.post("/broken/1?mail=q-ada@example.com", json={"person": "b-ada@example.com"})
        assert response.status_code == 500

asyncio.run(main())
sentry_sdk.flush(10)
"""


def _run(**environment: str) -> None:
    subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True
    )


def test_a_failed_request_is_reported_without_personal_data() -> None:
    with sink() as sentry:
        _run(SENTRY_DSN=f"http://key@{sentry.host}/7")
    everything = b"".join(body for _, body in sentry.requests)
    assert everything.count(b"as it should") == 1
    assert b"/broken/1" in everything
    for private in (b"ada@example.com", b"t0ken-of-ada", b"c00kie-of-ada"):
        assert private not in everything


def test_nothing_is_reported_without_a_dsn() -> None:
    with sink() as sentry:
        _run(SENTRY_DSN="")
    assert sentry.requests == []


@pytest.mark.parametrize(
    "dsn", ["sentry.io", "https://sentry.io/7", "https://key@/7", "https://key@sentry.io", "ftp://k@h/7"]
)
def test_an_invalid_dsn_is_rejected_without_showing_it(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_DSN", dsn)
    with pytest.raises(ValidationError, match="KEY@HOST/PROJECT") as caught:
        SentrySettings()
    assert dsn not in str(caught.value)
