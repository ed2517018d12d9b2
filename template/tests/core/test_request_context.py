"""The id of a request: in its response, and in its log lines."""

import re

import httpx2 as httpx
import pytest
import structlog
from fastapi import FastAPI

pytestmark = pytest.mark.anyio
TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture(autouse=True)
def context(app: FastAPI) -> None:
    """Add a route that returns the context of its log lines."""

    @app.get("/context")
    async def read() -> dict[str, str]:
        return structlog.contextvars.get_contextvars()


async def test_a_request_has_an_id_of_its_own(client: httpx.AsyncClient) -> None:
    answers = [await client.get("/context") for _ in range(2)]
    ids = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(ids) == 2
    assert [answer.json()["request_id"] for answer in answers] == [answer.headers["X-Request-ID"] for answer in answers]
    assert structlog.contextvars.get_contextvars() == {}


async def test_a_proxy_sets_the_id_and_the_trace(client: httpx.AsyncClient) -> None:
    answer = await client.get("/context", headers={"X-Request-ID": "abc-1", "traceparent": TRACEPARENT})
    assert answer.json() == {"request_id": "abc-1", "traceparent": TRACEPARENT}
    assert answer.headers["X-Request-ID"] == "abc-1"


@pytest.mark.parametrize("value", [b"", b"a" * 65, b"a b", b"a\tb", "ä".encode()])
async def test_an_id_that_could_forge_a_log_line_is_replaced(client: httpx.AsyncClient, value: bytes) -> None:
    answer = await client.get("/context", headers={b"X-Request-ID": value, b"traceparent": b"00-x"})
    assert re.fullmatch("[0-9a-f]{32}", answer.json()["request_id"])
    assert "traceparent" not in answer.json()


async def test_an_error_has_the_id_too(client: httpx.AsyncClient) -> None:
    assert (await client.get("/missing")).headers["X-Request-ID"]
