"""Requests with a body that is too large, to the application's routes and to routes that users add."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, Request

from app.core.config.application import app_settings
from app.main import create_app

pytestmark = pytest.mark.anyio

LIMIT = 2048
TOO_LARGE = {"detail": f"The request body is larger than {LIMIT} bytes."}


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limit of request bodies."""
    monkeypatch.setattr(app_settings, "max_body_bytes", LIMIT)


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Yield a body in pieces; the client sends it without a Content-Length."""
    for start in range(0, len(content), 500):
        yield content[start : start + 500]


def body(size: int, announced: bool) -> Any:
    # Not JSON: a route that reads it answers 422 and has no effect.
    content = b"x" * size
    return content if announced else pieces(content)


def operations(app: FastAPI) -> Iterator[tuple[str, str, bool]]:
    """Yield method, path, and whether a body is declared, of every route except the one with its own limit."""
    for path, item in app.openapi()["paths"].items():
        for method, operation in item.items():
            if (method, path) != ("put", "/files/{name}"):
                yield method.upper(), re.sub(r"{\w+}", "1", path), "requestBody" in operation


@pytest.mark.parametrize("announced", [True, False], ids=["content-length", "chunked"])
async def test_every_route_answers_a_large_body_with_413(announced: bool) -> None:
    app = create_app()

    async def check(method: str, path: str, reads: bool) -> None:
        headers = {"Content-Type": "application/json"}
        answer = await client.request(method, path, content=body(LIMIT + 1, announced), headers=headers)
        if announced or reads:
            assert (answer.status_code, answer.json()) == (413, TOO_LARGE), path
        fitting = await client.request(method, path, content=body(LIMIT, announced), headers=headers)
        assert fitting.status_code != 413, path

    async with client_of(app) as client:
        # In parallel, because some routes take long.
        await asyncio.gather(*(check(*operation) for operation in operations(app)))


async def test_a_path_without_a_route_answers_a_large_body_with_413() -> None:
    async with client_of(create_app()) as client:
        answer = await client.post("/none", content=body(LIMIT + 1, True))
        assert (answer.status_code, answer.json()) == (413, TOO_LARGE)


@pytest.fixture
def done() -> list[str]:
    """Give the list in which routes record their side effects."""
    return []


@pytest.fixture
def own(done: list[str]) -> FastAPI:
    """Give the application with routes, routers and a mounted application, as users add them."""
    app = create_app()

    @app.post("/ignores")
    async def ignores() -> None:
        done.append("ignores")

    @app.post("/catches")
    async def catches(request: Request) -> str:
        with suppress(Exception):
            await request.body()
        return "caught"

    @app.post("/grouped")
    async def grouped(request: Request) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(request.body())

    @app.post("/own", max_body_size=LIMIT * 2)
    async def own(request: Request) -> int:
        return len(await request.body())

    inner = APIRouter(prefix="/inner", max_body_size=LIMIT * 4)
    inner.post("/own", max_body_size=LIMIT // 2)(own)
    inner.post("/")(own)
    outer = APIRouter(prefix="/outer", max_body_size=LIMIT * 3)
    outer.post("/")(own)
    outer.include_router(inner)
    app.include_router(outer)
    mounted = FastAPI(max_body_size=LIMIT * 5)
    mounted.post("/")(own)
    app.mount("/mounted", mounted)
    return app


@pytest.mark.parametrize("announced", [True, False], ids=["content-length", "chunked"])
@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/own", LIMIT * 2),
        ("/outer/", LIMIT * 3),
        ("/outer/inner/", LIMIT * 4),
        ("/outer/inner/own", LIMIT // 2),
        ("/mounted/", LIMIT * 5),
    ],
)
async def test_the_innermost_limit_applies(own: FastAPI, path: str, limit: int, announced: bool) -> None:
    async with client_of(own) as client:
        answer = await client.post(path, content=body(limit, announced))
        assert (answer.status_code, answer.json()) == (200, limit)
        answer = await client.post(path, content=body(limit + 1, announced))
        assert answer.status_code == 413
        assert answer.json() == {"detail": f"The request body is larger than {limit} bytes."}


async def test_a_route_that_ignores_its_body_does_not_run_for_a_large_one(own: FastAPI, done: list[str]) -> None:
    async with client_of(own) as client:
        answer = await client.post("/ignores", content=body(LIMIT + 1, True))
        assert (answer.status_code, answer.json(), done) == (413, TOO_LARGE, [])
        assert (await client.post("/ignores", content=body(LIMIT, True))).status_code == 200
        assert done == ["ignores"]


@pytest.mark.parametrize("announced", [True, False], ids=["content-length", "chunked"])
@pytest.mark.parametrize("path", ["/catches", "/grouped"])
async def test_a_route_cannot_suppress_the_413(own: FastAPI, path: str, announced: bool) -> None:
    async with client_of(own) as client:
        answer = await client.post(path, content=body(LIMIT + 1, announced))
        assert (answer.status_code, answer.json()) == (413, TOO_LARGE)


@pytest.mark.parametrize("announced", [True, False], ids=["content-length", "chunked"])
async def test_middleware_does_not_change_the_answer(own: FastAPI, announced: bool) -> None:
    @own.middleware("http")
    async def passes(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    async with client_of(own) as client:
        answer = await client.post("/own", content=body(LIMIT * 2 + 1, announced))
        assert (answer.status_code, answer.json()["detail"][-11:]) == (413, "4096 bytes.")


@pytest.mark.parametrize("announced", [True, False], ids=["content-length", "chunked"])
async def test_a_client_on_a_real_socket_gets_the_answer(own: FastAPI, announced: bool) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(own, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        length = "Content-Length: 4097" if announced else "Transfer-Encoding: chunked"
        writer.write(f"POST /own HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{length}\r\n\r\n".encode())
        for _ in range(0 if announced else 5):
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    finally:
        server.should_exit = True
        await serving
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413")
    assert content == b'{"detail":"The request body is larger than 4096 bytes."}'
