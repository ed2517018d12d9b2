"""Limit the bytes that an owner may store. They are counted from the stored files, so the count is always correct."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import obstore
from fastapi import Depends, HTTPException

from app.api.owner import OwnerDep
from app.features.storage.config import storage_settings
from app.features.storage.service import FILES, store


@dataclass
class _Arriving:
    """The current uploads of an owner to this process."""

    uploads: int = 0
    received: int = 0
    """Bytes of running uploads."""
    stored: int = 0
    """Bytes of finished uploads."""


_arriving: dict[str, _Arriving] = {}


async def _with_space(owner: OwnerDep) -> str:
    if await _stored(owner) >= storage_settings.max_bytes_per_owner:
        raise _no_space()
    return owner


OwnerWithSpace = Annotated[str, Depends(_with_space)]
"""The owner, if their quota is not used up: for routes that queue tasks which write files."""


JOB_RESPONSES: dict[int | str, dict[str, Any]] = {
    413: {"description": "The body exceeds the route's size limit, or the owner's quota is used up"},
    429: {"description": "The owner has CELERY_MAX_JOBS_PER_OWNER unfinished jobs"},
    503: {"description": "Redis or the storage is unavailable"},
}
"""The error responses of routes that queue tasks which write files."""


@asynccontextmanager
async def space_for(owner: str, path: str, announced: int) -> AsyncIterator[Callable[[int], None]]:
    """Yield a function to call with the size of each chunk of a new file; it raises 413 if the quota is exceeded.

    Each process counts its own concurrent uploads, so that uploads to several processes together may exceed the quota.
    """
    arriving = _arriving.setdefault(owner, _Arriving())
    arriving.uploads += 1
    own = stored = 0
    try:
        # An upload that finishes during the listing may or may not be in it; this counts it at least once.
        before = arriving.stored
        room = storage_settings.max_bytes_per_owner - await _stored(owner, replaced=path)

        def take(size: int) -> None:
            nonlocal own
            own += size
            arriving.received += size
            if arriving.received + arriving.stored - before > room:
                raise _no_space()

        if announced + arriving.received > room:
            raise _no_space()
        yield take
        stored = own
    finally:
        arriving.received -= own
        arriving.stored += stored
        arriving.uploads -= 1
        if not arriving.uploads:
            del _arriving[owner]


async def _stored(owner: str, replaced: str | None = None) -> int:
    """Return the bytes of the owner's files, except the file that will be replaced."""
    total = 0
    async for chunk in obstore.list(store(), f"{FILES}/{owner}", chunk_size=1000):
        total += sum(meta["size"] for meta in chunk if meta["path"] != replaced)
    return total


def _no_space() -> HTTPException:
    limit = storage_settings.max_bytes_per_owner
    return HTTPException(413, f"Your files exceed the quota of {limit} bytes; delete some files first.")
