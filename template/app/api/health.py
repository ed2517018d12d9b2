"""Health of the process, and of what it needs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

router = APIRouter(tags=["health"])

checks: dict[str, Callable[[], Awaitable[object]]] = {}
"""What GET /ready asks, by name; a check fails by raising or by taking longer than 2.5 s."""

_TIME_LIMIT = 2.5
_logger = structlog.get_logger(__name__)


class Readiness(BaseModel):
    """`ok` or `unavailable`, in all and for each thing that the application needs."""

    status: str
    checks: dict[str, str]


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether this process answers; nothing else is asked, so that an outage elsewhere does not restart it."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(
    response: Response, without: Annotated[frozenset[str], Query(max_length=20)] = frozenset()
) -> Readiness:
    """Whether everything that this application uses is there, but for what `without` names."""
    names = [name for name in checks if name not in without]
    results = await asyncio.gather(*(_result(name) for name in names))
    good = all(result == "ok" for result in results)
    if not good:
        response.status_code = 503
    return Readiness(status="ok" if good else "unavailable", checks=dict(zip(names, results, strict=True)))


async def _result(name: str) -> str:
    try:
        async with asyncio.timeout(_TIME_LIMIT):
            await checks[name]()
    # Each driver has errors of its own, and all of them mean the same here.
    except Exception as error:  # noqa: BLE001
        # The caller learns which part is missing; what exactly went wrong may hold addresses and stays in the log.
        _logger.warning("not_ready", check=name, error=repr(error))
        return "unavailable"
    return "ok"
