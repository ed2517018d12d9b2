"""What a feature adds to the API: a folder in `app/features/` whose `feature.py` has `feature = Feature(...)`.

Features are found by their files: `feature.py` (this module), `config.py` (settings), `models.py` (tables) and `worker.py`
(`connect()`, called in workers and wherever tasks are queued). docs/features.md builds one from nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp

from app.core.audit import AuditPoint
from app.core.discovery import load_feature_modules


@dataclass(frozen=True)
class Routes:
    """Routes that need more than to be included."""

    router: APIRouter
    max_body_bytes: Callable[[], int] | None = None
    """Return the largest request body; called when the application is created. Without it APP_MAX_BODY_BYTES counts."""
    in_production: bool = True
    """False leaves them out in staging and production."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a feature adds to the API. Everything is optional; features apply in the order of their folders' names."""

    routes: Sequence[APIRouter | Routes] = ()
    checks: Mapping[str, Callable[[], Awaitable[object]]] = field(default_factory=dict)
    """Readiness checks of GET /ready by name; one fails by raising or by taking longer than 2.5 s."""
    exception_handlers: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = field(
        default_factory=dict
    )
    middleware: Sequence[Callable[[ASGIApp], ASGIApp]] = ()
    """ASGI middleware; a later one wraps an earlier one."""
    start: Callable[[], None] | None = None
    """Called before the application is created."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for `FastAPI(...)`."""
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None
    """Entered when the application starts, left when it stops."""
    audit: Sequence[AuditPoint] = ()
    """What `python -m app.audit` checks in addition to the settings."""


def load_features() -> list[Feature]:
    """Return the features of this project, in the order of their folders' names."""
    return [module.feature for module in load_feature_modules("feature")]
