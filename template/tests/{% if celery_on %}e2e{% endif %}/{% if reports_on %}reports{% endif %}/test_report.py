"""A report on a real worker, from the request to the download."""

import io
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest
from pypdf import PdfReader

from app.api import owner
from app.main import create_app
from app.tasks.report_task import generate_monthly_report
from app.worker.publish import wait_for
from tests.e2e.conftest import Stack

pytestmark = pytest.mark.anyio


def _client_of(name: str) -> httpx.AsyncClient:
    app = create_app()
    app.dependency_overrides[owner.current_owner] = lambda: name
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def ada() -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an owner; delete the owner's report after the test."""
    async with _client_of("ada") as client:
        yield client
        await client.delete("/files/report_2026_02.pdf")


async def test_a_report_is_created_and_downloaded_by_its_owner(stack: Stack, ada: httpx.AsyncClient) -> None:
    for _ in range(2):
        response = await ada.post("/reports", json={"month": 2, "year": 2026})
        assert response.status_code == 202, response.text
        # GET /task shows it only to its owner, who has no login here.
        status = await wait_for(response.json()["task_id"], 30)
        assert status is not None
        assert (status.status, status.error) == ("SUCCESS", None)
        assert status.result == {"filename": "report_2026_02.pdf", "status": "completed"}
    names = [file["name"] for file in (await ada.get("/files")).json()]
    assert names == ["report_2026_02.pdf"], "the second report replaces the first"
    content = (await ada.get("/files/report_2026_02.pdf")).content
    assert "February 2026" in PdfReader(io.BytesIO(content)).pages[0].extract_text()
    async with _client_of("bob") as bob:
        assert (await bob.get("/files/report_2026_02.pdf")).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((13, 2026), "must be an integer from 1 to 12"),
        ((1, 9999), "9999-01 has not started"),
        ((1, 2026, "../x"), "is not a valid file name"),
    ],
)
async def test_invalid_arguments_fail_with_a_reason(stack: Stack, arguments: tuple[Any, ...], reason: str) -> None:
    state = stack.state(generate_monthly_report.delay(*arguments).id)
    assert state["status"] == "FAILURE"
    assert reason in state["error"]["message"]
