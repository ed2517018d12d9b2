"""The dead-letter list: messages that no worker can run, stored whole in the broker's database instead of redelivered."""

import base64
import json
import time
from typing import Any

import structlog

KEY = "dead_letters"
MAX_LETTERS = 200
"""How many are stored; the oldest are dropped."""

EXPIRES = 30 * 86400
"""Seconds after the newest one when all are dropped."""

_logger = structlog.get_logger("app.worker")


def store(message: Any, reason: BaseException) -> None:
    """Store a kombu message, then acknowledge it.

    Raises:
        redis.exceptions.RedisError: Redis refused it; the message is not acknowledged.
    """
    body = message.body
    letter = {
        "time": time.time(),
        "reason": f"{type(reason).__name__}: {reason}"[:500],
        "queue": (message.delivery_info or {}).get("routing_key"),
        "headers": message.headers,
        "properties": message.properties,
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
        "body": base64.b64encode(body.encode() if isinstance(body, str) else bytes(body)).decode(),
    }
    with message.channel.client.pipeline() as pipe:
        pipe.lpush(KEY, json.dumps(letter, default=repr))
        pipe.ltrim(KEY, 0, MAX_LETTERS - 1)
        pipe.expire(KEY, EXPIRES)
        pipe.execute()
    # Neither the reason's text nor the message: they may contain arguments.
    headers = message.headers if isinstance(message.headers, dict) else {}
    _logger.error(
        "message_dead_lettered",
        task=headers.get("task"),
        task_id=headers.get("id"),
        reason=type(reason).__name__,
        stored_in=KEY,
    )
    message.ack()


def read(client: Any, number: int = MAX_LETTERS) -> list[dict[str, Any]]:
    """Return the newest dead letters; `client` is one of the broker's database, `body` is base64.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return [json.loads(letter) for letter in client.lrange(KEY, 0, number - 1)]
