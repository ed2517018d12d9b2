"""The limit on request bodies."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from app.core.body_limit import BodyLimit

pytestmark = pytest.mark.anyio


@pytest.fixture
async def small() -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of an application that takes ten bytes."""
    app = FastAPI()
    app.add_middleware(BodyLimit, max_bytes=10, larger={"/large/": 20})

    @app.post("/")
    @app.post("/large/{name}")
    async def length(request: Request) -> int:
        return len(await request.body())

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def _chunks() -> AsyncIterator[bytes]:
    for _ in range(4):
        yield b"12345"


async def test_a_body_up_to_the_limit_passes(small: httpx.AsyncClient) -> None:
    assert (await small.post("/", content=b"1234567890")).json() == 10


async def test_an_announced_larger_one_is_refused(small: httpx.AsyncClient) -> None:
    answer = await small.post("/", content=b"12345678901")
    assert answer.status_code == 413
    assert "10 bytes" in answer.json()["detail"]


async def test_an_unannounced_larger_one_is_refused(small: httpx.AsyncClient) -> None:
    assert (await small.post("/", content=_chunks())).status_code == 413


async def test_a_path_may_have_a_limit_of_its_own(small: httpx.AsyncClient) -> None:
    assert (await small.post("/large/x", content=_chunks())).json() == 20
    answer = await small.post("/large/x", content=b"x" * 21)
    assert answer.status_code == 413
    assert "20 bytes" in answer.json()["detail"]
