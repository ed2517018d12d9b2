"""Publish a message once per key: the idempotency key of a call, or the row of the outbox.

The key is stored in the same step as the message, in the broker's database: neither can be there without the other.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from kombu.utils import json
from redis.exceptions import ResponseError

from app.worker.pipeline import Command
from app.worker.serializer import InvalidArguments, check_arguments

EXPIRES = 86400
"""Seconds for which an idempotency key is kept."""

MAX_LENGTH = 255
"""Characters of an idempotency key."""

# All are judged before the first write, as a script undoes nothing. Plain `#!lua`: refused as a whole if Redis is full.
_PUBLISH = """#!lua
local outcomes = {}
for i = 1, #KEYS, 2 do
    local kind = redis.call('TYPE', KEYS[i]).ok
    local stored = redis.call('GET', KEYS[i + 1])
    if stored then
        outcomes[#outcomes + 1] = stored
    elseif kind == 'none' or kind == 'list' then
        outcomes[#outcomes + 1] = ''
    else
        outcomes[#outcomes + 1] = kind
    end
end
for i = 1, #KEYS, 2 do
    if outcomes[(i + 1) / 2] == '' then
        redis.call('LPUSH', KEYS[i], ARGV[i + 1])
        redis.call('SET', KEYS[i + 1], ARGV[i + 2], 'EX', ARGV[1])
    end
end
return outcomes
"""


class IdempotencyKeyReused(ValueError):
    """The idempotency key was used for another task, or for other arguments."""


class Key(NamedTuple):
    """A key with which a task is queued once."""

    name: str
    """In Redis."""
    call: str
    """What is the same in all calls with the key: a digest, without spaces."""
    expires: int
    """Seconds for which it is kept."""


class Once(NamedTuple):
    """A message that is published unless its key is stored."""

    queue: str
    key: str
    value: str
    """What is stored under the key: the reply to everybody who comes later."""
    message: str


def publication(messages: Iterable[Once], expires: int) -> Command:
    """Return the command that publishes messages. Its reply has for each: nothing if it is published now, the value that is
    stored under its key, or the Redis type of the key that should be a queue.
    """
    keys: list[str] = []
    values: list[str] = []
    for one in messages:
        keys += [one.queue, one.key]
        values += [one.message, one.value]
    return "EVAL", _PUBLISH, len(keys), *keys, expires, *values


def check_key(key: str) -> None:
    """Return if a call may have this idempotency key.

    Raises:
        ValueError: it is empty or too long.
    """
    if not 0 < len(key) <= MAX_LENGTH:
        raise ValueError(f"the idempotency key has {len(key)} characters; 1 to {MAX_LENGTH} are allowed.")


def redis_key(owner: str | None, key: str) -> str:
    """Return the Redis key of an owner's idempotency key. Two owners may use the same."""
    return f"idempotency/{digest([owner, key])}"


def key_of_call(owner: str | None, key: str, signature: Any) -> Key:
    """Return the key of a call of `enqueue`.

    Raises:
        ValueError: the idempotency key is empty or too long.
        app.worker.serializer.InvalidArguments: a message cannot contain the arguments.
    """
    check_key(key)
    return Key(redis_key(owner, key), digest_of_call(signature), EXPIRES)


def digest_of_call(signature: Any) -> str:
    """Return what is the same in all calls with one key.

    Raises:
        app.worker.serializer.InvalidArguments: a message cannot contain the arguments.
    """
    check_arguments(args=signature.args, kwargs=signature.kwargs)
    return digest([signature.task, signature.args, signature.kwargs])


def queued_id(stored: bytes | str, call: str, task: str) -> str:
    """Return the id of the task that was queued with this key before, if `call` is what it was then.

    Raises:
        IdempotencyKeyReused: it was another task, or the same with other arguments.
        redis.exceptions.ResponseError: the key of the queue is not a list.
    """
    value = stored.decode() if isinstance(stored, bytes) else stored
    stored_call, space, task_id = value.partition(" ")
    if not space:
        raise ResponseError(f"WRONGTYPE the queue is a {value}")
    if call != stored_call:
        raise IdempotencyKeyReused(
            f"{task}: the idempotency key was used in the last 24 hours for another task or other arguments."
        )
    return task_id


def digest(value: object) -> str:
    """Return a digest of a value, as a worker would get it.

    Raises:
        app.worker.serializer.InvalidArguments: it is not JSON.
    """
    try:
        # Its keys are then text, which can be sorted.
        received = json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise InvalidArguments(f"not JSON: {error}") from error
    return hashlib.sha256(json.dumps(received, sort_keys=True).encode()).hexdigest()
