"""Metrics of requests, and the port that serves them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx2 as httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from prometheus_client.parser import text_string_to_metric_families

from app.features.metrics import exposition as metrics
from app.features.metrics import requests
from app.features.metrics.requests import RequestMetrics
from devtools.servers import free_port
from tests import ROOT

LIMIT = 60


def read(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples that a port serves, by name and labels."""
    response = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(port: int, name: str, **labels: str) -> float:
    """Return the sum of all samples with this name and these labels."""
    wanted = set(labels.items())
    return sum(value for (found, has), value in read(port).items() if found == name and wanted <= has)


def make_app() -> FastAPI:
    """Return an application with a route for each case."""
    router = APIRouter(prefix="/items")

    @router.get("/{number}")
    async def item(number: int) -> int:
        return number

    app = FastAPI()
    app.include_router(router, prefix="/v1")

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("as it should")

    app.add_middleware(RequestMetrics)
    return app


@pytest.fixture
def port() -> Iterator[int]:
    """Serve this process's metrics on a free port."""
    number = free_port()
    with metrics.serving(number):
        yield number


async def test_requests_are_counted_by_path_template(port: int) -> None:
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=False)
    name = "http_requests_total"
    # Other tests in this process also request unknown paths.
    unknown, other = total(port, name, route="none", status="404"), total(port, name, method="other", route="none")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/v1/items/1", "/v1/items/2", "/v1/items/x", "/broken", "/nowhere/1", "/nowhere/2"):
            await client.get(path)
        await client.request("BREW", "/nowhere/3")
    assert total(port, name, method="GET", route="/v1/items/{number}", status="200") == 2
    assert total(port, name, method="GET", route="/v1/items/{number}", status="422") == 1
    assert total(port, name, method="GET", route="/broken", status="500") == 1
    assert total(port, name, method="other", route="none") == other + 1
    assert total(port, name, route="none", status="404") == unknown + 3
    assert total(port, "http_request_duration_seconds_count", route="/v1/items/{number}") == 3


async def test_a_stream_is_timed_until_it_begins(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(requests, "time", SimpleNamespace(perf_counter=lambda: now))
    app = make_app()

    async def events() -> AsyncIterator[str]:
        nonlocal now
        now = 600.0
        yield "data: 1\n\n"

    @app.get("/stream")
    async def stream(kind: str) -> StreamingResponse:
        return StreamingResponse(events(), media_type=kind)

    name = "http_request_duration_seconds_sum"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.get("/stream", params={"kind": "text/event-stream"})
        assert (total(port, name, route="/stream"), now) == (0, 600)
        now = 0.0
        await client.get("/stream", params={"kind": "text/plain"})
    assert total(port, name, route="/stream") == 600


async def test_a_port_in_use_is_not_an_error(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with metrics.serving(port):
        assert read(port)
    assert read(port)


def test_the_port_is_released_afterwards() -> None:
    number = free_port()
    for _ in range(2):
        with metrics.serving(number):
            assert read(number)
    with pytest.raises(httpx.ConnectError):
        read(number)


@pytest.mark.processes
def test_a_process_ends_that_serves_metrics_until_then() -> None:
    code = (
        "from contextlib import ExitStack; from app.features.metrics.exposition import serving\n"
        "server = ExitStack()\nserver.enter_context(serving(0))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=LIMIT, check=False)
    assert done.returncode == 0


@contextmanager
def api(log: Path, *options: str, **environment: str) -> Iterator[str]:
    """Run the API and yield its address."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + LIMIT
        while not log.read_text().count("Application startup complete") >= (2 if "--workers" in options else 1):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            threading.Event().wait(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.processes
def test_metrics_are_served_on_a_separate_port(tmp_path: Path) -> None:
    number = free_port()
    with api(tmp_path / "log", METRICS_API_PORT=str(number)) as address:
        assert httpx.get(f"{address}/metrics").status_code == 404
        assert httpx.get(f"{address}/health").status_code == 200
        assert total(number, "http_requests_total", route="/health", status="200") == 1
    assert "WARNING" not in (log := (tmp_path / "log").read_text()), log


@pytest.mark.processes
def test_the_processes_of_one_api_share_their_counters(tmp_path: Path) -> None:
    number = free_port()
    shared = tmp_path / "shared"
    shared.mkdir()
    variables = {"METRICS_API_PORT": str(number), "PROMETHEUS_MULTIPROC_DIR": str(shared)}
    with api(tmp_path / "log", "--workers", "2", **variables) as address:
        for _ in range(60):
            assert httpx.get(f"{address}/health").status_code == 200
        assert len(list(shared.glob("counter_*.db"))) == 2, "both processes handled requests"
        assert total(number, "http_requests_total", route="/health") == 60
