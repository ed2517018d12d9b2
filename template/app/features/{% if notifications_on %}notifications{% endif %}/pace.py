"""Limit the rate of bulk notifications over all workers. Celery's `rate_limit` applies to each worker separately."""

from app.worker.broker import results_client

KEY = "notifications:reserved"
"""The end of the reserved time, in milliseconds of Redis's clock."""

_RESERVE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local start = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local finish = start + ARGV[1]
redis.call('SET', KEYS[1], string.format('%.0f', finish), 'PX', string.format('%.0f', finish - now + 1000))
return start - now
"""


def reserve(seconds: float) -> float:
    """Reserve a period of `seconds` after all earlier reservations; return the seconds until it starts.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    return float(results_client().eval(_RESERVE, 1, KEY, round(seconds * 1000))) / 1000
