"""Liveness and readiness endpoints."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from app.core.logging import error_repr

router = APIRouter(tags=["health"])

checks: dict[str, Callable[[], Awaitable[object]]] = {}
"""The readiness checks of GET /ready by name. A check fails if it raises or takes longer than 2.5 s."""

_TIME_LIMIT = 2.5
_logger = structlog.get_logger(__name__)


class Readiness(BaseModel):
    """`ok` or `unavailable`, overall and for each check."""

    status: str
    checks: dict[str, str]


@router.get("/health")
async def health() -> dict[str, str]:
    """Report that this process is alive. Checks no other server, so that its outage does not restart the process."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(
    response: Response, without: Annotated[frozenset[str], Query(max_length=20)] = frozenset()
) -> Readiness:
    """Report whether every server that the application needs is available, except the checks named in `without`."""
    names = [name for name in checks if name not in without]
    results = await asyncio.gather(*(_result(name) for name in names))
    is_ready = all(result == "ok" for result in results)
    if not is_ready:
        response.status_code = 503
    return Readiness(status="ok" if is_ready else "unavailable", checks=dict(zip(names, results, strict=True)))


async def _result(name: str) -> str:
    try:
        async with asyncio.timeout(_TIME_LIMIT):
            await checks[name]()
    # Each driver raises its own exceptions; here they all mean that the server is unavailable.
    except Exception as error:  # noqa: BLE001
        # The response only names the check: the error may contain addresses, so it is only logged.
        _logger.warning("not_ready", check=name, error=error_repr(error))
        return "unavailable"
    return "ok"
