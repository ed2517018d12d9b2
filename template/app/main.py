"""The FastAPI application, built from the core and every feature (app/core/features.py): `uvicorn app.main:app`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.api import health
from app.api.content_too_large import ContentTooLarge, reject_larger_body
from app.api.errors import invalid_request
from app.api.openapi import document_error_responses
from app.api.request_context import RequestContext
from app.api.security_headers import SecurityHeaders
from app.core.config import require_safe_settings
from app.core.config.application import app_settings
from app.core.database import close_database, open_database, ping_database
from app.core.features import Routes, load_features
from app.core.logging import configure_logging


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the database, and what features need, for the time that the application runs."""
    await open_database()
    async with AsyncExitStack() as stack:
        for feature in load_features():
            if feature.lifespan:
                await stack.enter_async_context(feature.lifespan())
        yield
    await close_database()


def create_app() -> FastAPI:
    """Return a new application.

    Raises:
        UnsafeSettings: `ENVIRONMENT` is production or staging and the settings are not safe.
    """
    require_safe_settings()
    configure_logging()
    features = load_features()
    options: dict[str, Any] = {}
    for feature in features:
        if feature.start:
            feature.start()
        options |= feature.options
    app = FastAPI(
        title=app_settings.name,
        version=app_settings.version,
        description=app_settings.description,
        lifespan=lifespan,
        openapi_url="/openapi.json" if app_settings.docs_enabled else None,
        # The default; a router or a route may set another limit.
        max_body_size=app_settings.max_body_bytes,
        dependencies=[Depends(reject_larger_body)],
        **options,
    )
    app.add_middleware(ContentTooLarge)
    app.add_exception_handler(RequestValidationError, invalid_request)
    health.checks["database"] = ping_database
    app.include_router(health.router)
    for feature in features:
        for part in feature.routes:
            include_routes(app, part)
        for error, handler in feature.exception_handlers.items():
            app.add_exception_handler(error, handler)
        for middleware in feature.middleware:
            app.add_middleware(middleware)
        health.checks.update(feature.checks)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestContext)
    # Outermost, so that everything inside sees the client's address instead of the proxy's.
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=app_settings.forwarded_allow_ips)
    document_error_responses(app)
    return app


def include_routes(app: FastAPI, part: APIRouter | Routes) -> None:
    """Add a feature's routes to the application."""
    if isinstance(part, APIRouter):
        app.include_router(part)
    elif part.in_production or not app_settings.must_be_safe:
        app.include_router(part.router, max_body_size=part.max_body_bytes() if part.max_body_bytes else None)


app = create_app()
