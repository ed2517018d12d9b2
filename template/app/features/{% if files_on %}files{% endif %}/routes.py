"""Routes to upload, list, download and delete files. Each owner sees only their own files."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import obstore
import structlog
from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from obstore.exceptions import BaseError
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from app.api.content_too_large import content_length
from app.api.errors import invalid
from app.api.owner import OwnerDep
from app.features.files.quota import space_for
from app.features.storage.service import FILES, InvalidFileName, checked, store

_UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"description": "The storage is unavailable"}}
router = APIRouter(tags=["files"], responses=_UNAVAILABLE)
uploads = APIRouter(tags=["files"])
"""A separate router, because its body limit is `STORAGE_MAX_UPLOAD_BYTES`."""

StorageError = BaseError
"""Any error of the storage except a missing file."""

_CHUNK = 1024 * 1024
MAX_UPLOADS = 16
"""Maximum number of concurrent uploads per process; each buffers up to 12 MiB for a slow bucket."""
_uploads = 0
_logger = structlog.get_logger("app.files")


class StoredFile(BaseModel):
    """A stored file; `size` is in bytes."""

    name: str
    size: int


def stored_path(owner: OwnerDep, name: Annotated[str, Path(max_length=127)]) -> str:
    """Return the storage path of the owner's file with this name; raise 422 if the name is invalid."""
    return path_of(owner, name, ("path", "name"))


def path_of(owner: str, name: str, where: tuple[str, ...]) -> str:
    """Return the storage path for a name that is at `where` in the request; raise 422 if the name is invalid."""
    try:
        return checked(FILES, owner, name)
    except InvalidFileName as error:
        raise invalid(where, str(error)) from error


StoredPath = Annotated[str, Depends(stored_path)]


@router.get("/files")
async def list_files(owner: OwnerDep) -> list[StoredFile]:
    """Return up to 1,000 of the owner's files, sorted by name."""
    found: list[StoredFile] = []
    async for chunk in obstore.list(store(), f"{FILES}/{owner}", chunk_size=1000):
        found += [StoredFile(name=meta["path"].rpartition("/")[2], size=meta["size"]) for meta in chunk]
        if len(found) >= 1000:
            break
    return sorted(found[:1000], key=lambda file: file.name)


@uploads.put(
    "/files/{name}",
    status_code=201,
    responses={
        413: {"description": "The file exceeds STORAGE_MAX_UPLOAD_BYTES, or the owner's quota is exceeded"},
        503: {"description": "Too many concurrent uploads, or the storage is unavailable"},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(path: StoredPath, owner: OwnerDep, request: Request) -> StoredFile:
    """Store the request's body as a file; it replaces a file with the same name. The body is streamed."""
    try:
        with _upload_slot():
            async with space_for(owner, path, content_length(request.scope)) as take:
                # obstore's default of 12 parts of 5 MiB would need 60 MiB for each upload to a slow bucket.
                await obstore.put_async(store(), path, _body(request, take), max_concurrency=2)
    except ClientDisconnect as error:
        # The client is gone and does not read this, but it is not an error of the application either.
        raise HTTPException(400, "The upload was interrupted.") from error
    meta = await obstore.head_async(store(), path)
    return StoredFile(name=path.rpartition("/")[2], size=meta["size"])


@router.get(
    "/files/{name}", response_class=StreamingResponse, responses={404: {"description": "The file does not exist"}}
)
async def download(path: StoredPath) -> StreamingResponse:
    """Return the file as an attachment, so that an uploaded HTML page cannot run in the application's origin."""
    try:
        found = await obstore.get_async(store(), path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    name = quote(path.rpartition("/")[2])
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Length": str(found.meta["size"]),
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(_chunks(found), media_type="application/octet-stream", headers=headers)


@router.delete("/files/{name}", status_code=204, responses={404: {"description": "The file does not exist"}})
async def delete(path: StoredPath) -> Response:
    """Delete the file."""
    try:
        await obstore.head_async(store(), path)
        await obstore.delete_async(store(), path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    return Response(status_code=204)


async def require_file(path: str) -> None:
    """Check that the file exists; raise 404 otherwise."""
    try:
        await obstore.head_async(store(), path)
    except FileNotFoundError as error:
        raise _missing(path) from error


async def storage_unavailable(_: Request, error: Exception) -> JSONResponse:
    """Return 503 for a storage error: the bucket's service is unreachable, or the disk is full."""
    _logger.error("storage_failed", error=str(error)[:1000])
    return JSONResponse(
        {"detail": "The storage is unavailable; try again later."}, status_code=503, headers={"Retry-After": "5"}
    )


def _missing(path: str) -> HTTPException:
    return HTTPException(404, f"The file {path.rpartition('/')[2]} does not exist.")


@contextmanager
def _upload_slot() -> Iterator[None]:
    global _uploads
    if _uploads >= MAX_UPLOADS:
        raise HTTPException(503, "Too many concurrent uploads; try again later.", headers={"Retry-After": "5"})
    _uploads += 1
    try:
        yield
    finally:
        _uploads -= 1


async def _body(request: Request, take: Callable[[int], None]) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            take(len(chunk))
            yield chunk


async def _chunks(found: Any) -> AsyncIterator[bytes]:
    async for chunk in found.stream(min_chunk_size=_CHUNK):
        yield bytes(chunk)
