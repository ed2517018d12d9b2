"""Fifty clients log in to a real server at the same time."""

import asyncio
import re
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from app.features.accounts.config import password_settings
from tests.e2e.conftest import Stack

MIB = 1024 * 1024


def _reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _memory(pid: int, what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


async def _login(http: httpx.AsyncClient, number: int) -> httpx.Response:
    # Unknown addresses: verifying takes the same time, and each address has its own rate limit.
    return await http.post("/login", json={"email": f"nobody{number}@example.com", "password": "correct horse"})


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux reports the peak memory of a process"
)
async def test_many_logins_do_not_exhaust_memory_or_block_other_requests(stack: Stack) -> None:
    pid = stack.api.process.pid
    _reset_peak(pid)
    before = _memory(pid, "VmRSS")
    limits = httpx.Limits(max_connections=60)
    async with httpx.AsyncClient(base_url=stack.http.base_url, timeout=30, limits=limits) as http:
        logins = asyncio.gather(*(_login(http, number) for number in range(50)))
        health: list[float] = []
        ready: list[int] = []
        while not logins.done():
            start = time.perf_counter()
            assert (await http.get("/health")).status_code == 200
            health.append(time.perf_counter() - start)
            if len(health) % 20 == 1:
                ready.append((await http.get("/ready?without=worker&without=beat&without=schedule")).status_code)
            await asyncio.sleep(0.01)
        responses = await logins
    assert {response.status_code for response in responses} <= {401, 503}
    assert all("Retry-After" in response.headers for response in responses if response.status_code == 503)
    assert sum(response.status_code == 401 for response in responses) >= 10
    assert set(ready) == {200}
    # Typically 2 ms, and 15 ms for the slowest of a hundred; other tests run on the same CPUs.
    assert sorted(health)[len(health) * 9 // 10] < 0.05
    allowed = password_settings.hash_concurrency * 64 * MIB + 48 * MIB
    assert _memory(pid, "VmHWM") - before < allowed
