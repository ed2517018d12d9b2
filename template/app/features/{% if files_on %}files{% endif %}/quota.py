"""How many bytes an owner may store, counted from what is stored: nothing can leak."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import obstore
from fastapi import Depends, HTTPException

from app.api.owner import Owner
from app.features.storage.config import storage_settings
from app.features.storage.service import FILES, store


@dataclass
class _Arriving:
    """The uploads of an owner to this process, kept while there is one."""

    uploads: int = 0
    received: int = 0
    """Bytes of those that go on."""
    stored: int = 0
    """Bytes of those that have ended."""


_arriving: dict[str, _Arriving] = {}


async def _with_space(owner: Owner) -> str:
    if await _stored(owner) >= storage_settings.max_bytes_per_owner:
        raise _no_space()
    return owner


OwnerWithSpace = Annotated[str, Depends(_with_space)]
"""The owner of files, where they may store more: for routes that queue what writes files."""


JOB_ANSWERS: dict[int | str, dict[str, Any]] = {
    413: {"description": "The body is larger than the route takes, or the owner's files take all that they may"},
    429: {"description": "The owner has CELERY_MAX_JOBS_PER_OWNER jobs that have not ended"},
    503: {"description": "Redis or the storage does not answer"},
}
"""What routes answer that queue what writes files."""


@asynccontextmanager
async def space_for(owner: str, path: str, announced: int) -> AsyncIterator[Callable[[int], None]]:
    """Give what is to be called with the size of each piece of a new file; answers 413 where the owner may not store as much.

    Each process counts the uploads that it has at the same time; those to several processes together may go beyond the limit.
    """
    arriving = _arriving.setdefault(owner, _Arriving())
    arriving.uploads += 1
    own = stored = 0
    try:
        # Files that are stored from here on may be among those that are listed, or not: they are counted at least once.
        before = arriving.stored
        room = storage_settings.max_bytes_per_owner - await _stored(owner, but=path)

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


async def _stored(owner: str, but: str | None = None) -> int:
    """Return the bytes of the owner's files, without the one that is to be replaced."""
    total = 0
    async for chunk in obstore.list(store(), f"{FILES}/{owner}", chunk_size=1000):
        total += sum(meta["size"] for meta in chunk if meta["path"] != but)
    return total


def _no_space() -> HTTPException:
    limit = storage_settings.max_bytes_per_owner
    return HTTPException(413, f"Your files may take {limit} bytes together: delete some first.")
