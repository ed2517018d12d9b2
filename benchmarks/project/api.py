"""The generated project's API with routes that queue a task: `uvicorn benchmarks.project.api:app`."""

import asyncio
import time
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from app.main import app
from app.worker import publish
from benchmarks.project.tasks import ignored

_PAUSE = 0.002
MANY = 100
router = APIRouter(prefix="/bench")
_lags: list[float] = []
_watch: list[asyncio.Task[None]] = []


@router.post("/nothing")
async def nothing() -> dict[str, int]:
    """Queue nothing."""
    return {"queued": 0}


@router.post("/delay")
async def delay() -> dict[str, int]:
    """Queue a task as Celery's documentation does."""
    ignored.delay(0.0)
    return {"queued": 1}


@router.post("/enqueue")
async def enqueue() -> dict[str, int]:
    """Queue a task as the project's documentation does."""
    await publish.enqueue(ignored.s(0.0))
    return {"queued": 1}


if hasattr(publish, "enqueue_many"):
    _enqueue_many: Any = publish.enqueue_many

    @router.post("/enqueue_many")
    async def enqueue_many() -> dict[str, int]:
        """Queue many tasks at once."""
        await _enqueue_many([ignored.s(0.0) for _ in range(MANY)])
        return {"queued": MANY}


@router.post("/routes")
async def routes() -> list[str]:
    """Return the paths of these routes: not every release has all of them."""
    return [route.path for route in router.routes if isinstance(route, APIRoute)]


@router.post("/lags")
async def lags() -> list[float]:
    """Return by how many milliseconds the event loop was late since the last call, and start to watch it."""
    found = _lags[:]
    _lags.clear()
    if not _watch:
        _watch.append(asyncio.create_task(_watch_the_loop()))
    return found


async def _watch_the_loop() -> None:
    while True:
        due = time.perf_counter() + _PAUSE
        await asyncio.sleep(_PAUSE)
        _lags.append(1000 * (time.perf_counter() - due))


app.include_router(router)
