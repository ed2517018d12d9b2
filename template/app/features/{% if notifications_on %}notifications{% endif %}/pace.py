"""How fast bulk notifications go out, over all workers: Celery's own `rate_limit` counts in each worker for itself."""

from app.worker.broker import results_client

KEY = "notifications:reserved"
"""Until when, in milliseconds of Redis's own clock, the time is taken."""

_RESERVE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local start = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local finish = start + ARGV[1]
redis.call('SET', KEYS[1], string.format('%.0f', finish), 'PX', string.format('%.0f', finish - now + 1000))
return start - now
"""


def reserve(seconds: float) -> float:
    """Reserve so many seconds after all that are reserved already, and return how long it is until they begin.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return float(results_client().eval(_RESERVE, 1, KEY, round(seconds * 1000))) / 1000
