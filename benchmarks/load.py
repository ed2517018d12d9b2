"""HTTP requests from many clients, each on one connection: less work per request than a client library."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

from benchmarks.context import Failed

_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


def post(port: int, path: str) -> Any:
    """Send one request and return the content of the answer."""

    async def once() -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return json.loads(await _request(reader, writer, path))
        finally:
            writer.close()

    return asyncio.run(once())


def requests_per_second(port: int, path: str, clients: int, seconds: float) -> float:
    """Return how many requests a second `clients` get answered, each sending the next one after an answer."""

    async def one_client(deadline: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done = 0
        try:
            while time.monotonic() < deadline:
                await _request(reader, writer, path)
                done += 1
        finally:
            writer.close()
        return done

    async def all_clients() -> float:
        start = time.monotonic()
        counts = await asyncio.gather(*(one_client(start + seconds) for _ in range(clients)))
        return sum(counts) / (time.monotonic() - start)

    return asyncio.run(all_clients())


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
    writer.write(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if length is None:
        raise Failed(f"{path} answered without a length: {head!r}")
    body = await reader.readexactly(int(length[1]))
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise Failed(f"{path} answered {head.splitlines()[0]!r}: {body!r}")
    return body
