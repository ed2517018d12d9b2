"""Routes of files."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import obstore
import pytest
from obstore.store import LocalStore

from app.api import owner
from app.features.files import quota as file_space
from app.features.files import routes as files
from app.features.storage.config import storage_settings
from app.features.storage.service import store
from app.main import create_app

pytestmark = pytest.mark.anyio


def _client_of(name: str) -> httpx.AsyncClient:
    app = create_app()
    app.dependency_overrides[owner.current_owner] = lambda: name
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def clients() -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Yield clients of two owners."""
    async with _client_of("ada") as ada, _client_of("bob") as bob:
        yield ada, bob
    for chunk in obstore.list(store(), "files"):
        await obstore.delete_async(store(), [meta["path"] for meta in chunk])


Clients = tuple[httpx.AsyncClient, httpx.AsyncClient]


async def _chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65536):
        yield b"x" * 65536


async def test_a_file_can_be_uploaded_and_downloaded(clients: Clients) -> None:
    ada, bob = clients
    size = 12 * 1024 * 1024
    stored = await ada.put("/files/Gr%C3%BC%C3%9Fe.csv", content=_chunks(size))
    assert (stored.status_code, stored.json()) == (201, {"name": "Grüße.csv", "size": size})
    found = await ada.get("/files/Gr%C3%BC%C3%9Fe.csv")
    assert found.content == b"x" * size
    assert found.headers["content-disposition"] == "attachment; filename*=UTF-8''Gr%C3%BC%C3%9Fe.csv"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert (await ada.get("/files")).json() == [{"name": "Grüße.csv", "size": size}]
    assert (await bob.get("/files")).json() == []
    for response in (await bob.get("/files/Gr%C3%BC%C3%9Fe.csv"), await bob.delete("/files/Gr%C3%BC%C3%9Fe.csv")):
        assert response.status_code == 404
    assert (await ada.delete("/files/Gr%C3%BC%C3%9Fe.csv")).status_code == 204
    assert (await ada.get("/files")).json() == []


async def test_an_empty_file_can_be_uploaded(clients: Clients) -> None:
    assert (await clients[0].put("/files/empty.txt")).json() == {"name": "empty.txt", "size": 0}
    assert (await clients[0].get("/files/empty.txt")).content == b""


@pytest.mark.parametrize("name", ["..", ".env", "a%2Fb", "%2e%2e%2fx", "a%00b", "x" * 128, "日" * 127])
async def test_invalid_names_are_rejected(clients: Clients, name: str) -> None:
    assert (await clients[0].put(f"/files/{name}", content=b"x")).status_code in {404, 405, 422}
    assert (await clients[0].get("/files")).json() == []


@pytest.mark.parametrize("announced", [True, False])
async def test_a_file_above_the_limit_is_rejected_and_not_stored(
    announced: bool, monkeypatch: pytest.MonkeyPatch, clients: Clients
) -> None:
    monkeypatch.setattr(storage_settings, "max_upload_bytes", 2 * 65536)
    async with _client_of("ada") as client:
        content = b"x" * (3 * 65536) if announced else _chunks(3 * 65536)
        response = await client.put("/files/a.csv", content=content)
        assert (response.status_code, response.json()) == (
            413,
            {"detail": "The request body is larger than 131072 bytes."},
        )
        assert (await client.get("/files")).json() == []


async def test_the_quota_applies_to_all_files_of_an_owner(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_settings, "max_bytes_per_owner", 3 * 65536)
    ada, bob = clients
    assert (await ada.put("/files/a", content=_chunks(2 * 65536))).status_code == 201
    for content in (b"x" * (2 * 65536), _chunks(2 * 65536)):
        refused = await ada.put("/files/b", content=content)
        assert refused.status_code == 413
        assert refused.json() == {"detail": "Your files exceed the quota of 196608 bytes; delete some files first."}
    assert (await bob.put("/files/b", content=_chunks(3 * 65536))).status_code == 201, "the quota is per owner"
    assert (await ada.put("/files/a", content=_chunks(3 * 65536))).status_code == 201, "it replaces the file"
    assert (await ada.get("/files")).json() == [{"name": "a", "size": 3 * 65536}]
    await ada.delete("/files/a")
    assert (await ada.put("/files/b", content=b"x")).status_code == 201


async def test_the_quota_applies_to_concurrent_uploads(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_settings, "max_bytes_per_owner", 5 * 65536)
    responses = await asyncio.gather(*(clients[0].put(f"/files/{n}", content=_chunks(2 * 65536)) for n in range(8)))
    stored = (await clients[0].get("/files")).json()
    assert len(stored) == sum(response.status_code == 201 for response in responses)
    assert sum(file["size"] for file in stored) <= 5 * 65536
    assert {response.status_code for response in responses} <= {201, 413}
    assert file_space._arriving == {}


async def test_an_owner_without_quota_cannot_queue_tasks_that_write_files(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, _ = clients
    await ada.put("/files/a.csv", content=b"x" * 2048)
    monkeypatch.setattr(storage_settings, "max_bytes_per_owner", 2048)
    requests = {
        "/process-csv": {"file": "a.csv"},
        "/thumbnails": {"file": "a.csv"},
        "/reports": {"month": 1, "year": 2026},
    }
    served = create_app().openapi()["paths"]
    for path in requests.keys() & served.keys():
        assert (await ada.post(path, json=requests[path])).status_code == 413, path
    monkeypatch.setattr(storage_settings, "max_bytes_per_owner", 4096)
    for path in requests.keys() & served.keys():
        assert (await ada.post(path, json=requests[path])).status_code == 202, path


async def test_the_number_of_concurrent_uploads_is_limited(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each upload needs memory, so that too many could get the process killed."""
    monkeypatch.setattr(files, "MAX_UPLOADS", 2)
    ada, _ = clients
    begun, more = asyncio.Semaphore(0), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        begun.release()
        await more.wait()
        yield b"y"

    running = [asyncio.create_task(ada.put(f"/files/{number}", content=slow())) for number in range(2)]
    for _ in running:
        await asyncio.wait_for(begun.acquire(), 5)
    refused = await ada.put("/files/third", content=b"z")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    more.set()
    assert [(await upload).json()["size"] for upload in running] == [2, 2]
    assert (await ada.put("/files/third", content=b"z")).status_code == 201


async def test_an_interrupted_upload_does_not_change_the_existing_file(clients: Clients) -> None:
    ada, _ = clients
    await ada.put("/files/a.csv", content=b"old")
    app = create_app()
    app.dependency_overrides[owner.current_owner] = lambda: "ada"
    messages: list[Any] = [
        {"type": "http.request", "body": b"new" * 3_000_000, "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "PUT", "path": "/files/a.csv", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert (await ada.get("/files/a.csv")).content == b"old"
    assert (await ada.get("/files")).json() == [{"name": "a.csv", "size": 3}]


async def test_a_storage_error_returns_503(clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").write_text("not a folder")
    monkeypatch.setattr("app.features.files.routes.store", lambda: LocalStore(tmp_path))
    for method in ("GET", "PUT"):
        response = await clients[0].request(method, "/files/a.csv")
        assert (response.status_code, response.json()) == (
            503,
            {"detail": "The storage is unavailable; try again later."},
        )
