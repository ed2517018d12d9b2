"""Limits of how often something may happen, counted in Redis for all processes."""

import hashlib
import math
import secrets
from dataclasses import dataclass

from app.core.redis import cache


class RateLimited(Exception):
    """It happened too often; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many attempts; the next is possible in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Limit:
    """At most `times` in `seconds` seconds for each caller, counted from its first."""

    name: str
    times: int
    seconds: int

    async def count(self, who: str, group: str = "") -> None:
        """Count one more of `who`, who may belong to a group that is forgotten together.

        Raises:
            RateLimited: it was one too many.
            redis.RedisError: Redis does not answer.
        """
        count, milliseconds = await _count(await self._key(who, group), self.seconds)
        if count > self.times:
            raise RateLimited(math.ceil(milliseconds / 1000))

    async def forget(self, who: str, group: str = "") -> None:
        """Count `who` from zero again."""
        await (await cache.connected()).unlink(await self._key(who, group))

    async def forget_group(self, group: str) -> None:
        """Count everybody in the group from zero again."""
        # The group's callers are not known: their keys get other names, and those of before expire no later than this one.
        await (await cache.connected()).set(self._group_key(group), secrets.token_hex(8), ex=self.seconds)

    async def _key(self, who: str, group: str) -> str:
        if not group:
            return _key(self.name, who)
        since = await (await cache.connected()).get(self._group_key(group)) or b""
        return _key(self.name, f"{since!r} {group} {who}")

    def _group_key(self, group: str) -> str:
        return _key(f"{self.name}-group", group)


@dataclass(frozen=True)
class Slowdown:
    """Nobody is refused: beyond `times` in `seconds` seconds each attempt waits longer, up to `max_delay` seconds."""

    name: str
    times: int
    seconds: int
    max_delay: float = 5

    async def count(self, who: str) -> float:
        """Count one more of `who` and return for how many seconds to wait.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        count, _ = await _count(_key(self.name, who), self.seconds)
        return min(self.max_delay, max(0, count - self.times) * self.max_delay / self.times)

    async def forget(self, who: str) -> None:
        """Count `who` from zero again."""
        await (await cache.connected()).unlink(_key(self.name, who))


async def _count(key: str, seconds: int) -> tuple[int, int]:
    """Add one and return the count and for how many milliseconds it is kept; every key expires."""
    client = await cache.connected()
    async with client.pipeline(transaction=True) as pipe:
        pipe.set(key, 0, ex=seconds, nx=True)
        pipe.incr(key)
        pipe.pttl(key)
        _, count, milliseconds = await pipe.execute()
    return int(count), int(milliseconds)


def _key(name: str, who: str) -> str:
    # Hashed: it may be an address, and of any length.
    return cache.key(f"limit:{name}:{hashlib.sha256(who.encode()).hexdigest()}")
