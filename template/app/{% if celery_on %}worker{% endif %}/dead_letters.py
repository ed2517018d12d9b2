"""The dead letters: messages of tasks that ended for good, stored whole in the broker's database until they are replayed or deleted.

A message becomes a dead letter when no worker can run it (`poison_messages`, `unknown_tasks`), when its task was redelivered too
often (`redelivery`), and when a task with `dead_letter=True` fails. `replay` queues it again. What a list of them shows is stored
separately, as a message may have some megabytes.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from celery import current_app
from kombu.utils.json import dumps

from app.worker.broker import lua_script
from app.worker.flow_control import client as shared_client

TIMES = "dead_letters/times"
SUMMARIES = "dead_letters/summaries"
MESSAGES = "dead_letters/messages"
FORMER = "dead_letters"
"""The list in which releases before 0.7.0 store dead letters. They are moved when dead letters are read."""

KEYS = (TIMES, SUMMARIES, MESSAGES)

MAX_LETTERS = 1000
"""How many are stored; the oldest are dropped."""

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of all messages that are stored; the oldest are dropped, but never the newest."""

EXPIRES = 30 * 86400
"""Seconds after the newest one when all are dropped."""

HIDDEN = "(hidden)"
"""What the header `argsrepr` has instead of arguments, for a task with `redact_arguments`."""

_MAX_TEXT = 255
_MAX_REASON = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_logger = structlog.get_logger("app.worker")

_ADD = """
local function add(time, id, summary, message)
    redis.call('ZADD', KEYS[1], time, id)
    redis.call('HSET', KEYS[2], id, summary)
    redis.call('HSET', KEYS[3], id, message)
end
"""

# A full Redis takes them: the message leaves the unacknowledged ones.
_STORE = lua_script(
    "#!lua flags=allow-oom\n"
    + _ADD
    + """
-- KEYS: times, summaries, messages  ARGV: id, summary, message, how many are stored, their bytes, seconds
local time = redis.call('TIME')
add(time[1] .. string.format('%06d', time[2]), ARGV[1], ARGV[2], ARGV[3])
local bytes = 0
for number, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1, 'REV')) do
    bytes = bytes + redis.call('HSTRLEN', KEYS[3], id)
    if number > 1 and (number > tonumber(ARGV[4]) or bytes > tonumber(ARGV[5])) then
        redis.call('ZREM', KEYS[1], id)
        redis.call('HDEL', KEYS[2], id)
        redis.call('HDEL', KEYS[3], id)
    end
end
for _, key in ipairs(KEYS) do
    redis.call('EXPIRE', key, ARGV[6])
end
"""
)

_MOVE = lua_script(
    "#!lua flags=allow-oom\n"
    + _ADD
    + """
-- Move the oldest letter of the former list, unless another process was faster.
-- KEYS: times, summaries, messages, the list  ARGV: id, summary, message, time, seconds
if redis.call('LINDEX', KEYS[4], -1) ~= ARGV[3] then
    return
end
add(ARGV[4], ARGV[1], ARGV[2], ARGV[3])
redis.call('RPOP', KEYS[4])
for i = 1, 3 do
    redis.call('EXPIRE', KEYS[i], ARGV[5], 'NX')
end
"""
)

_DELETE = lua_script("""#!lua flags=allow-oom
-- KEYS: times, summaries, messages  ARGV: id
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
""")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list shows of a dead letter. Texts that the message does not have are None."""

    task: str | None
    task_id: str | None
    queue: str | None
    error: str
    """The type of the error."""
    reason: str
    """The type and the message of the error."""
    redacted: bool
    """Whether the task's arguments may be shown to nobody."""
    size: int
    """Bytes of the message's body."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter without its message."""

    letter_id: str
    time: datetime
    summary: Summary


def store(message: Any, reason: BaseException) -> None:
    """Store a kombu message, then acknowledge it.

    Raises:
        redis.exceptions.RedisError: Redis refused it; the message is not acknowledged.
    """
    keep(message, reason)
    message.ack()


def keep(message: Any, reason: BaseException) -> None:
    """Store a kombu message. The same message is one dead letter, however often it is stored.

    Raises:
        redis.exceptions.RedisError: Redis refused it.
    """
    body = message.body
    content = body.encode(errors="surrogatepass") if isinstance(body, str) else bytes(body or b"")
    error = error_type(reason)
    letter = {
        "reason": f"{error}: {reason}"[:_MAX_REASON],
        "queue": (message.delivery_info or {}).get("routing_key"),
        "headers": message.headers,
        "properties": message.properties,
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
        "body": base64.b64encode(content).decode(),
    }
    summary = _summary(letter, error, len(content))
    letter_id = _id(summary.task_id, content)
    texts = [json.dumps(asdict(summary)), _to_json(letter)]
    _STORE(shared_client(), KEYS, [letter_id, *texts, MAX_LETTERS, MAX_BYTES, EXPIRES])
    # Neither the reason's text nor the message: they may contain arguments.
    _logger.error(
        "message_dead_lettered",
        task=summary.task,
        task_id=summary.task_id,
        reason=error,
        dead_letter=letter_id,
    )


def read(client: Any, number: int = MAX_LETTERS) -> list[dict[str, Any]]:
    """Return the newest dead letters with their messages; `client` is one of the broker's database, `body` is base64.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return [
        {"id": letter.letter_id, "time": letter.time.timestamp(), **message}
        for letter in letters(client)[: max(0, number)]
        if (message := _message(client, letter.letter_id)) is not None
    ]


def letters(client: Any) -> list[DeadLetter]:
    """Return all dead letters, the newest first.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    _move_former(client)
    with client.pipeline() as pipe:
        pipe.zrange(TIMES, 0, -1, desc=True, withscores=True)
        pipe.hgetall(SUMMARIES)
        times, summaries = pipe.execute()
    return [_letter(letter_id, time, summaries[letter_id]) for letter_id, time in times if letter_id in summaries]


def find(client: Any, letter_id: str) -> tuple[DeadLetter, dict[str, Any]] | None:
    """Return a dead letter and its message, or None if there is none.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    _move_former(client)
    with client.pipeline() as pipe:
        pipe.zscore(TIMES, letter_id)
        pipe.hget(SUMMARIES, letter_id)
        pipe.hget(MESSAGES, letter_id)
        time, summary, message = pipe.execute()
    if time is None or summary is None or message is None:
        return None
    return _letter(letter_id.encode(), time, summary), json.loads(message)


def delete(client: Any, letter_id: str) -> bool:
    """Delete a dead letter; return whether there was one.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return bool(_DELETE(client, KEYS, [letter_id]))


def error_type(error: BaseException) -> str:
    """Return the name of an error's type, also of one that a process could not send as it is."""
    return str(getattr(error, "exc_cls_name", type(error).__name__))


def _summary(letter: Mapping[str, Any], error: str, size: int) -> Summary:
    headers = letter["headers"] if isinstance(letter["headers"], dict) else {}
    name = _text(headers.get("task"))
    is_redacted = headers.get("argsrepr") == HIDDEN
    is_redacted = is_redacted or bool(getattr(current_app.tasks.get(name or ""), "redact_arguments", False))
    return Summary(
        task=name,
        task_id=_text(headers.get("id")),
        queue=_text(letter["queue"]),
        error=error[:_MAX_TEXT],
        reason=str(letter["reason"]),
        redacted=is_redacted,
        size=size,
    )


def _text(value: object) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) and value else None


def _id(task_id: str | None, body: bytes) -> str:
    # Not random: a message whose acknowledgement was lost is stored again.
    return hashlib.sha256(f"{task_id}\n".encode(errors="surrogatepass") + body).hexdigest()[:32]


def _to_json(letter: dict[str, Any]) -> str:
    try:
        # As kombu reads it: a header may be a date.
        return str(dumps(letter))
    except (TypeError, ValueError, RecursionError):
        return json.dumps(letter, default=repr)


def _letter(letter_id: bytes, time: float, summary: bytes) -> DeadLetter:
    fields = json.loads(summary)
    known = {name: fields.get(name) for name in Summary.__dataclass_fields__}
    return DeadLetter(letter_id.decode(), _EPOCH + timedelta(microseconds=int(time)), Summary(**known))


def _message(client: Any, letter_id: str) -> dict[str, Any] | None:
    text = client.hget(MESSAGES, letter_id)
    return dict(json.loads(text)) if text else None


def _move_former(client: Any) -> None:
    """Move the letters that releases before 0.7.0 have stored, of which some workers may still run."""
    for text in _oldest_first(client):
        former = json.loads(text)
        content = base64.b64decode(former["body"])
        error = str(former["reason"]).partition(":")[0]
        summary = _summary(former, error, len(content))
        arguments = [
            _id(summary.task_id, content),
            json.dumps(asdict(summary)),
            text,
            int(former["time"] * 1e6),
            EXPIRES,
        ]
        _MOVE(client, [*KEYS, FORMER], arguments)


def _oldest_first(client: Any) -> Iterable[bytes]:
    for _ in range(client.llen(FORMER)):
        text = client.lindex(FORMER, -1)
        if text is None:
            return
        yield text
