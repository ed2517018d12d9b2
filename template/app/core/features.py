"""Features: folders in `app/features/` that are found by the names of their files.

A feature's `feature.py` has `feature = Feature(...)`, which is what it adds to the API. `config.py` has its settings,
`models.py` its tables. `connect()` in `worker.py` runs in workers and in every process that publishes tasks.
docs/features.md builds one step by step.
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
    """A router with options."""

    router: APIRouter
    max_body_bytes: Callable[[], int] | None = None
    """Return the maximum size of a request body; called when the application starts. Default: APP_MAX_BODY_BYTES."""
    in_production: bool = True
    """False removes the routes in staging and production."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a feature adds to the API. Every field is optional; features apply in the order of their folder names."""

    routes: Sequence[APIRouter | Routes] = ()
    checks: Mapping[str, Callable[[], Awaitable[object]]] = field(default_factory=dict)
    """Readiness checks of GET /ready by name. A check fails if it raises or takes longer than 2.5 s."""
    exception_handlers: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = field(
        default_factory=dict
    )
    middleware: Sequence[Callable[[ASGIApp], ASGIApp]] = ()
    """ASGI middleware; a later one wraps an earlier one."""
    start: Callable[[], None] | None = None
    """Called before the application is created."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for `FastAPI(...)`."""
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None
    """Entered when the application starts and exited when it stops."""
    audit: Sequence[AuditPoint] = ()
    """Checks that `python -m app.audit` runs in addition to the core's."""


def load_features() -> list[Feature]:
    """Return the features of this project, in the order of their folder names."""
    return [module.feature for module in load_feature_modules("feature")]
