"""A report from its request to its download, on a real worker."""

import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
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
    app.dependency_overrides[owner._owner] = lambda: name
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def ada() -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of an owner, whose report is deleted in the end."""
    async with _client_of("ada") as client:
        yield client
        await client.delete("/files/report_2026_02.pdf")


async def test_a_report_is_made_and_downloaded_by_its_owner(stack: Stack, ada: httpx.AsyncClient) -> None:
    for _ in range(2):
        answer = await ada.post("/reports", json={"month": 2, "year": 2026})
        assert answer.status_code == 202, answer.text
        # GET /task shows it to its owner alone, who is nobody with a login here.
        status = await wait_for(answer.json()["task_id"], 30)
        assert status is not None
        assert (status.status, status.error) == ("SUCCESS", None)
        assert status.result == {"filename": "report_2026_02.pdf", "status": "completed"}
    names = [file["name"] for file in (await ada.get("/files")).json()]
    assert names == ["report_2026_02.pdf"], "made again, not twice"
    content = (await ada.get("/files/report_2026_02.pdf")).content
    assert "February 2026" in PdfReader(io.BytesIO(content)).pages[0].extract_text()
    async with _client_of("bob") as bob:
        assert (await bob.get("/files/report_2026_02.pdf")).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [((13, 2026), "month must be 1 to 12"), ((1, 9999), "9999-01 has not begun"), ((1, 2026, "../x"), "is no name")],
)
async def test_nonsense_is_a_failure_with_its_reason(stack: Stack, arguments: tuple[Any, ...], reason: str) -> None:
    state = stack.state(generate_monthly_report.delay(*arguments).id)
    assert state["status"] == "FAILURE"
    assert reason in state["error"]["message"]
