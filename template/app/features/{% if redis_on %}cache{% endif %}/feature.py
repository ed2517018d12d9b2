"""Declare the feature: the cache's readiness check, shutdown and audit check."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.core.audit import AuditPoint
from app.core.features import Feature
from app.core.redis import cache
from app.features.cache.audit import cache_findings


@asynccontextmanager
async def _lifespan() -> AsyncIterator[None]:
    yield
    await cache.close()


feature = Feature(checks={"redis": cache.ping}, lifespan=_lifespan, audit=[AuditPoint("services", cache_findings)])
