"""Files over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
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
    app.dependency_overrides[owner._owner] = lambda: name
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def clients() -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Give clients of two owners."""
    async with _client_of("ada") as ada, _client_of("bob") as bob:
        yield ada, bob
    for chunk in obstore.list(store(), "files"):
        await obstore.delete_async(store(), [meta["path"] for meta in chunk])


Clients = tuple[httpx.AsyncClient, httpx.AsyncClient]


async def _pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65536):
        yield b"x" * 65536


async def test_a_file_goes_up_and_comes_down(clients: Clients) -> None:
    ada, bob = clients
    size = 12 * 1024 * 1024
    stored = await ada.put("/files/Gr%C3%BC%C3%9Fe.csv", content=_pieces(size))
    assert (stored.status_code, stored.json()) == (201, {"name": "Grüße.csv", "size": size})
    found = await ada.get("/files/Gr%C3%BC%C3%9Fe.csv")
    assert found.content == b"x" * size
    assert found.headers["content-disposition"] == "attachment; filename*=UTF-8''Gr%C3%BC%C3%9Fe.csv"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert (await ada.get("/files")).json() == [{"name": "Grüße.csv", "size": size}]
    assert (await bob.get("/files")).json() == []
    for answer in (await bob.get("/files/Gr%C3%BC%C3%9Fe.csv"), await bob.delete("/files/Gr%C3%BC%C3%9Fe.csv")):
        assert answer.status_code == 404
    assert (await ada.delete("/files/Gr%C3%BC%C3%9Fe.csv")).status_code == 204
    assert (await ada.get("/files")).json() == []


async def test_an_empty_file_is_one(clients: Clients) -> None:
    assert (await clients[0].put("/files/empty.txt")).json() == {"name": "empty.txt", "size": 0}
    assert (await clients[0].get("/files/empty.txt")).content == b""


@pytest.mark.parametrize("name", ["..", ".env", "a%2Fb", "%2e%2e%2fx", "a%00b", "x" * 128, "日" * 127])
async def test_other_names_are_refused(clients: Clients, name: str) -> None:
    assert (await clients[0].put(f"/files/{name}", content=b"x")).status_code in {404, 405, 422}
    assert (await clients[0].get("/files")).json() == []


@pytest.mark.parametrize("announced", [True, False])
async def test_a_larger_file_is_refused_and_nothing_is_kept(
    announced: bool, monkeypatch: pytest.MonkeyPatch, clients: Clients
) -> None:
    monkeypatch.setattr(storage_settings, "max_upload_bytes", 2 * 65536)
    async with _client_of("ada") as client:
        content = b"x" * (3 * 65536) if announced else _pieces(3 * 65536)
        answer = await client.put("/files/a.csv", content=content)
        assert (answer.status_code, answer.json()) == (413, {"detail": "The request body is larger than 131072 bytes."})
        assert (await client.get("/files")).json() == []


async def test_the_files_of_an_owner_are_bounded_together(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_settings, "max_bytes_per_owner", 3 * 65536)
    ada, bob = clients
    assert (await ada.put("/files/a", content=_pieces(2 * 65536))).status_code == 201
    for content in (b"x" * (2 * 65536), _pieces(2 * 65536)):
        refused = await ada.put("/files/b", content=content)
        assert refused.status_code == 413
        assert refused.json() == {"detail": "Your files may take 196608 bytes together: delete some first."}
    assert (await bob.put("/files/b", content=_pieces(3 * 65536))).status_code == 201, "another's are another's"
    assert (await ada.put("/files/a", content=_pieces(3 * 65536))).status_code == 201, "it replaces the file"
    assert (await ada.get("/files")).json() == [{"name": "a", "size": 3 * 65536}]
    await ada.delete("/files/a")
    assert (await ada.put("/files/b", content=b"x")).status_code == 201


async def test_uploads_of_an_owner_at_the_same_time_are_bounded_together(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_settings, "max_bytes_per_owner", 5 * 65536)
    answers = await asyncio.gather(*(clients[0].put(f"/files/{n}", content=_pieces(2 * 65536)) for n in range(8)))
    stored = (await clients[0].get("/files")).json()
    assert len(stored) == sum(answer.status_code == 201 for answer in answers)
    assert sum(file["size"] for file in stored) <= 5 * 65536
    assert {answer.status_code for answer in answers} <= {201, 413}
    assert file_space._arriving == {}


async def test_an_owner_whose_space_is_used_up_queues_nothing_that_writes_files(
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


async def test_uploads_at_the_same_time_are_bounded(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has memory of its own, so that many would have the process killed."""
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


async def test_an_upload_that_is_broken_off_leaves_the_file_that_was_there(clients: Clients) -> None:
    ada, _ = clients
    await ada.put("/files/a.csv", content=b"old")
    app = create_app()
    app.dependency_overrides[owner._owner] = lambda: "ada"
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


async def test_a_storage_that_fails_is_503(clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").write_text("no folder")
    monkeypatch.setattr("app.features.files.routes.store", lambda: LocalStore(tmp_path))
    for method in ("GET", "PUT"):
        answer = await clients[0].request(method, "/files/a.csv")
        assert (answer.status_code, answer.json()) == (503, {"detail": "The storage does not answer."})
