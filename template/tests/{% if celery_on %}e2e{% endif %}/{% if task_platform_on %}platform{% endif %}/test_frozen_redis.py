"""While Redis is frozen, the routes of operators answer 503 in time."""

import asyncio
import os
import signal
import time
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI

from app.api.task_access import TaskViewer, operator_or_owner

pytestmark = pytest.mark.anyio

PREFIXES = ("/dead-letters", "/queues", "/workers", "/schedule")


async def test_frozen_redis_is_a_503_within_three_seconds(app: FastAPI, client: httpx.AsyncClient, broker: Any) -> None:
    app.dependency_overrides[operator_or_owner] = lambda: TaskViewer(None)
    paths = {path: found for path, found in app.openapi()["paths"].items() if path.startswith(PREFIXES)}
    assert paths
    calls = [(method, path) for path, operations in paths.items() for method in operations]

    async def check(method: str, path: str) -> None:
        start = time.monotonic()
        answer = await client.request(method, path.replace("{", "").replace("}", ""), json={})
        assert time.monotonic() - start < 3, (method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), path
        assert answer.headers["Retry-After"] == "5"

    pid = broker.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.gather(*(check(method, path) for method, path in calls))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (await client.get("/queues")).status_code == 200
