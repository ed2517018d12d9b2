"""Files over HTTP: what tasks are to work on, and what they made. Each owner sees their own."""

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
from app.api.owner import Owner
from app.features.files.quota import space_for
from app.features.storage.service import FILES, InvalidFileName, checked, store

_UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"description": "The storage does not answer"}}
router = APIRouter(tags=["files"], responses=_UNAVAILABLE)
uploads = APIRouter(tags=["files"])
"""Apart, as it takes bodies of `STORAGE_MAX_UPLOAD_BYTES`."""

StorageError = BaseError
"""What goes wrong with the storage, but for a file that is not there."""

_CHUNK = 1024 * 1024
MAX_UPLOADS = 16
"""Uploads at the same time in a process: each keeps up to 12 MiB that a bucket has not taken yet."""
_uploads = 0
_logger = structlog.get_logger("app.files")


class StoredFile(BaseModel):
    """A file, its size in bytes."""

    name: str
    size: int


def stored_path(owner: Owner, name: Annotated[str, Path(max_length=127)]) -> str:
    """Return where the owner's file of that name is in the storage; answers 422 to a name that cannot be one."""
    return path_of(owner, name, ("path", "name"))


def path_of(owner: str, name: str, where: tuple[str, ...]) -> str:
    """Return the same for a name that stands elsewhere in the request."""
    try:
        return checked(FILES, owner, name)
    except InvalidFileName as error:
        raise invalid(where, str(error)) from error


StoredPath = Annotated[str, Depends(stored_path)]


@router.get("/files")
async def list_files(owner: Owner) -> list[StoredFile]:
    """Return the owner's files by name, at most 1,000."""
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
        413: {"description": "Larger than STORAGE_MAX_UPLOAD_BYTES, or more than the owner may store"},
        503: {"description": "Too many uploads at once, or no storage"},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(path: StoredPath, owner: Owner, request: Request) -> StoredFile:
    """Store the body of the request, which is never in memory as a whole, in place of what has that name."""
    try:
        with _one_of_few():
            async with space_for(owner, path, content_length(request.scope)) as take:
                # obstore's own 12 parts of 5 MiB would be 60 MiB for each upload to a slow bucket.
                await obstore.put_async(store(), path, _filled(request, take), max_concurrency=2)
    except ClientDisconnect as error:
        # Nobody reads it; but it is no error of this application either.
        raise HTTPException(400, "The upload was broken off.") from error
    meta = await obstore.head_async(store(), path)
    return StoredFile(name=path.rpartition("/")[2], size=meta["size"])


@router.get("/files/{name}", response_class=StreamingResponse, responses={404: {"description": "No such file"}})
async def download(path: StoredPath) -> StreamingResponse:
    """Return the file, always to be saved: a page that somebody uploaded must not run in the name of this application."""
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


@router.delete("/files/{name}", status_code=204, responses={404: {"description": "No such file"}})
async def delete(path: StoredPath) -> Response:
    """Delete the file."""
    try:
        await obstore.head_async(store(), path)
        await obstore.delete_async(store(), path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    return Response(status_code=204)


async def require_file(path: str) -> None:
    """Return if there is such a file; answers 404 otherwise."""
    try:
        await obstore.head_async(store(), path)
    except FileNotFoundError as error:
        raise _missing(path) from error


async def storage_unavailable(_: Request, error: Exception) -> JSONResponse:
    """Answer 503 where the storage does not take or give a file: the bucket's service is away, or the disk is full."""
    _logger.error("storage_failed", error=str(error)[:1000])
    return JSONResponse({"detail": "The storage does not answer."}, status_code=503, headers={"Retry-After": "5"})


def _missing(path: str) -> HTTPException:
    return HTTPException(404, f"There is no file {path.rpartition('/')[2]}.")


@contextmanager
def _one_of_few() -> Iterator[None]:
    global _uploads
    if _uploads >= MAX_UPLOADS:
        raise HTTPException(503, "Too many uploads at once; try again later.", headers={"Retry-After": "5"})
    _uploads += 1
    try:
        yield
    finally:
        _uploads -= 1


async def _filled(request: Request, take: Callable[[int], None]) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            take(len(chunk))
            yield chunk


async def _chunks(found: Any) -> AsyncIterator[bytes]:
    async for chunk in found.stream(min_chunk_size=_CHUNK):
        yield bytes(chunk)
