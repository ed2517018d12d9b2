"""The audit check of the cache."""

import asyncio
from collections.abc import AsyncIterator

from app.core.audit import Finding, failure_of, no_answer
from app.core.redis import cache


async def cache_findings() -> AsyncIterator[Finding]:
    """Check that Redis is reachable."""
    failure = await failure_of(lambda: asyncio.to_thread(cache.sync.client.ping))
    yield no_answer("redis (cache)", failure) if failure else Finding("ok", "redis (cache)", "reachable")
