"""Rate limits that are counted in Redis, for all processes together."""

import hashlib
import math
import secrets
from dataclasses import dataclass

from app.core.redis import cache


class RateLimited(Exception):
    """The rate limit is exceeded; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"rate limit exceeded; retry after {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Limit:
    """Allow each caller `times` attempts in a window of `seconds`, which starts with the first attempt."""

    name: str
    times: int
    seconds: int

    async def count(self, caller: str, group: str = "") -> None:
        """Count an attempt of `caller`; the counts of a group can be reset together.

        Raises:
            RateLimited: the limit is exceeded.
            redis.RedisError: Redis is unreachable.
        """
        count, milliseconds = await _count(await self._key(caller, group), self.seconds)
        if count > self.times:
            raise RateLimited(math.ceil(milliseconds / 1000))

    async def forget(self, caller: str, group: str = "") -> None:
        """Reset the count of `caller`."""
        await (await cache.connected()).unlink(await self._key(caller, group))

    async def forget_group(self, group: str) -> None:
        """Reset the counts of all callers in the group."""
        # The group's keys are not known. This changes their names; the old keys expire no later than this one.
        await (await cache.connected()).set(self._group_key(group), secrets.token_hex(8), ex=self.seconds)

    async def _key(self, caller: str, group: str) -> str:
        if not group:
            return _key(self.name, caller)
        since = await (await cache.connected()).get(self._group_key(group)) or b""
        return _key(self.name, f"{since!r} {group} {caller}")

    def _group_key(self, group: str) -> str:
        return _key(f"{self.name}-group", group)


@dataclass(frozen=True)
class Slowdown:
    """Delay attempts instead of rejecting them: after `times` in `seconds`, each waits longer, up to `max_delay`."""

    name: str
    times: int
    seconds: int
    max_delay: float = 5

    async def count(self, caller: str) -> float:
        """Count an attempt of `caller` and return how many seconds to wait.

        Raises:
            redis.RedisError: Redis is unreachable.
        """
        count, _ = await _count(_key(self.name, caller), self.seconds)
        return min(self.max_delay, max(0, count - self.times) * self.max_delay / self.times)

    async def forget(self, caller: str) -> None:
        """Reset the count of `caller`."""
        await (await cache.connected()).unlink(_key(self.name, caller))


async def _count(key: str, seconds: int) -> tuple[int, int]:
    """Add one; return the count and in how many milliseconds it expires. Every key expires."""
    client = await cache.connected()
    async with client.pipeline(transaction=True) as pipe:
        pipe.set(key, 0, ex=seconds, nx=True)
        pipe.incr(key)
        pipe.pttl(key)
        _, count, milliseconds = await pipe.execute()
    return int(count), int(milliseconds)


def _key(name: str, caller: str) -> str:
    # Hashed: the caller may be personal data, and of any length.
    return cache.key(f"limit:{name}:{hashlib.sha256(caller.encode()).hexdigest()}")
