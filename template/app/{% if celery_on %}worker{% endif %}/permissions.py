"""What the Redis users of the queues and the results must be allowed to do."""

from collections.abc import Callable, Iterable
from typing import Any

import redis
from redis.exceptions import NoPermissionError, RedisError

from app.core.config.celery import celery_settings
from app.core.config.redis_url import for_redis_py

NEEDED = "~* &* +@all -@dangerous +info"
"""As `ACL SETUSER` takes it: all keys and channels, and no command that administers the server but INFO."""

FATAL = ("run scripts", "publish to channels", "subscribe to channels")
"""What a worker cannot start without."""

# As Celery names its channels of results, so that a user of those alone is not refused.
_KEY = "celery-task-meta-permission"


def missing_permissions(client: Any, uses: Iterable[str] | None = None) -> list[str]:
    """Return what the user of a connection may not do, of what the application does or of the `uses` that are named.

    Raises:
        redis.exceptions.RedisError: Redis does not answer, or refuses for another reason.
    """
    return [what for what in uses or _USES if not _is_allowed(_USES[what], client)]


def require_permissions() -> None:
    """Return if a worker has the permissions that it needs, or if Redis does not answer now: a worker waits for it.

    Raises:
        PermissionError: the user of one of the URLs lacks a permission.
    """
    for variable, url in (
        ("CELERY_BROKER_URL", celery_settings.broker_url),
        ("CELERY_RESULT_BACKEND", celery_settings.result_backend),
    ):
        try:
            address = for_redis_py(url.get_secret_value())
            with redis.Redis.from_url(address, socket_timeout=2, socket_connect_timeout=2) as client:
                # A user that is restricted to certain keys may have all that it needs.
                missing = missing_permissions(client, FATAL)
        except (RedisError, OSError):
            continue
        if missing:
            raise PermissionError(explain(variable, missing))


def explain(variable: str, missing: list[str]) -> str:
    """Return a sentence with what is missing and the fix."""
    return f"the Redis user of {variable} may not {', '.join(missing)}: give it `{NEEDED}`."


def _subscribe(client: Any) -> None:
    with client.pubsub() as channel:
        channel.subscribe(_KEY)
        channel.get_message(timeout=2)


_USES: dict[str, Callable[[Any], object]] = {
    "write keys": lambda client: client.set(_KEY, 1, ex=1),
    "run scripts": lambda client: client.eval("return 1", 0),
    "use lists": lambda client: client.llen(f"{_KEY}:list"),
    "use sorted sets": lambda client: client.zcard(f"{_KEY}:set"),
    "publish to channels": lambda client: client.publish(_KEY, ""),
    "subscribe to channels": _subscribe,
    "read INFO": lambda client: client.info("memory"),
}


def _is_allowed(use: Callable[[Any], object], client: Any) -> bool:
    try:
        use(client)
    except NoPermissionError:
        return False
    return True
