"""Queue the message of a dead letter again, as a new task.

The letter leaves the list in the call that queues its message: of two replays at once one queues it, and a Redis that refuses the
message keeps the letter. The new task has the arguments, queue, priority and owner of the old one, whose id its record has in
`replay_of`. Attempts, redeliveries, ETA and expiry begin again.
"""

import base64
import json
from typing import Any

from celery import current_app
from celery.signals import after_task_publish, before_task_publish
from celery.utils import uuid
from kombu.utils.json import dumps
from redis.exceptions import RedisError, ResponseError

from app.worker import dead_letters, messages, records
from app.worker.broker import lua_script, results_client
from app.worker.flow_control import CALL_HEADER

_STEPS = ("callbacks", "chain", "chord")
"""What the body of a message names that follows its task in a workflow."""

_KNOWN_FOR = 60

# Plain `#!lua`: refused as a whole if Redis is full.
_REPLAY = lua_script("""#!lua
-- KEYS: times, summaries, messages, the list of the queue, the last replay of the letter
-- ARGV: id of the letter, message, id of the new task, seconds for which the replay is known
-- Return 1 if it is queued, 0 if there is no such letter, or the type of the key that should be a list.
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then
    -- This script runs again if its answer was lost.
    return redis.call('GET', KEYS[5]) == ARGV[3] and 1 or 0
end
local kind = redis.call('TYPE', KEYS[4]).ok
if kind ~= 'list' and kind ~= 'none' then
    return kind
end
redis.call('LPUSH', KEYS[4], ARGV[2])
redis.call('SET', KEYS[5], ARGV[3], 'EX', ARGV[4])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
""")


class NotReplayable(ValueError):
    """The message of a dead letter cannot be queued again; the text has the reason."""


def check(client: Any, letter_id: str, *, alone: bool = False) -> bool:
    """Return whether there is such a dead letter, if it can be replayed.

    Raises:
        NotReplayable: it cannot.
        redis.exceptions.RedisError: Redis does not answer.
    """
    found = dead_letters.find(client, letter_id)
    if found is None:
        return False
    _made_again(*found, alone=alone)
    return True


def replay(client: Any, letter_id: str, *, alone: bool = False) -> str | None:
    """Queue the message of a dead letter again and return the id of its new task, or None if there is no such letter.

    Args:
        client: a client of the broker's database.
        letter_id: the dead letter.
        alone: whether to replay a step of a workflow, without the steps that follow it.

    Raises:
        NotReplayable: the message cannot be queued again; the letter is kept.
        redis.exceptions.RedisError: Redis refused it and keeps the letter, or its answer was lost.
    """
    found = dead_letters.find(client, letter_id)
    if found is None:
        return None
    message, queue = _made_again(*found, alone=alone)
    headers, task_id = message["headers"], str(message["headers"]["id"])
    body = decoded(message["body"]) or message["body"]
    # As when Celery publishes: the record of the task, its headers for logs and traces.
    before_task_publish.send(
        sender=headers["task"],
        body=body,
        exchange="",
        routing_key=queue,
        headers=headers,
        properties=message["properties"],
        declare=[],
        retry_policy=None,
    )
    name = queue + messages.keys().ending(message["properties"].get("priority"))
    keys = [*dead_letters.KEYS, name, f"dead_letters/replayed/{letter_id}"]
    try:
        outcome = _REPLAY(client, keys, [letter_id, dumps(message), task_id, _KNOWN_FOR])
    except ResponseError:
        # Refused: it is not queued.
        _forget(task_id)
        raise
    if outcome != 1:
        _forget(task_id)
        if outcome == 0:
            # Another replay was faster.
            return None
        raise ResponseError(f"WRONGTYPE the queue {queue} is a {outcome.decode()}")
    after_task_publish.send(sender=headers["task"], body=body, headers=headers, exchange="", routing_key=queue)
    return task_id


def _made_again(letter: dead_letters.DeadLetter, stored: dict[str, Any], *, alone: bool) -> tuple[dict[str, Any], str]:
    """Return a new message, and its queue."""
    queue = letter.summary.queue
    app: Any = current_app
    if letter.summary.task is None or not isinstance(stored["headers"], dict):
        raise NotReplayable("It names no task.")
    if letter.summary.redacted:
        raise NotReplayable("Its arguments are redacted: queue the task again where they are known.")
    if queue is None or queue not in app.amqp.queues:
        raise NotReplayable(f"Its queue {queue!r} is not one of this application's.")
    body = _without_steps(stored["body"], alone=alone)
    task_id = uuid()
    headers = {
        **stored["headers"],
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "retries": 0,
        "eta": None,
        "expires": None,
        records.REPLAY_HEADER: letter.summary.task_id,
    }
    if alone:
        headers |= {"group": None, "group_index": None}
    for name in (CALL_HEADER, "redelivered"):
        headers.pop(name, None)
    properties = {
        **(stored["properties"] or {}),
        "correlation_id": task_id,
        "delivery_tag": uuid(),
        "delivery_info": {"exchange": "", "routing_key": queue},
        "body_encoding": "base64",
    }
    message = {
        "body": body,
        "content-encoding": stored["content-encoding"],
        "content-type": stored["content-type"],
        "headers": headers,
        "properties": properties,
    }
    return message, queue


def _without_steps(body: str, *, alone: bool) -> str:
    """Return the body of a message, if no other task follows."""
    content = decoded(body)
    if content is None:
        return body
    args, kwargs, embedded = content
    if not any(embedded.get(step) for step in _STEPS):
        return body
    if not alone:
        raise NotReplayable(
            "It is a step of a workflow, whose other steps have failed: queue the workflow again, or replay it alone."
        )
    embedded = {**embedded, **dict.fromkeys(_STEPS)}
    return base64.b64encode(json.dumps([args, kwargs, embedded]).encode()).decode()


def decoded(body: str) -> tuple[list[Any], dict[str, Any], dict[str, Any]] | None:
    """Return the arguments, the keyword arguments and the workflow in the body of a letter, or None if it has none of them."""
    try:
        args, kwargs, embedded = json.loads(base64.b64decode(body))
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embedded, dict)):
        return None
    return args, kwargs, embedded


def _forget(task_id: str) -> None:
    try:
        for command in records.forget([task_id]):
            results_client().execute_command(*command)
    except RedisError as error:
        records.warn_not_recorded([task_id], error)
