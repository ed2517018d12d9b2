"""What a message may contain: JSON of limited depth and size, without the keys with which kombu marks Python types.

kombu writes a UUID as {"__type__": "uuid", "__value__": …} and creates an object from it when it decodes a message. With these keys
in its data, a caller could make a worker create objects: they are refused where a task is queued. The format stays kombu's, so
that plain Celery producers and workers, Flower and messages that are already queued continue to work.
"""

from collections.abc import Iterator
from typing import Any

from kombu.serialization import register
from kombu.utils import json

from app.core.config.celery import celery_settings

MAX_DEPTH = 100
"""Levels of lists and objects in the arguments of a task."""

MAX_VALUES = 250_000
MAX_BITS = 13_000
"""Bits of an integer: Python does not read much longer ones from JSON."""

_ENVELOPE = 20
"""Levels of Celery's own parts of a message, which may contain a workflow."""

RESULT = "result"
"""The name of the serializer of results."""

RESERVED = frozenset({"__type__", "__value__"})

_Place = tuple[Any, object] | None


class InvalidArguments(ValueError):
    """A message cannot contain a task's arguments; the text has the place and the reason."""


def check_arguments(**parts: object) -> None:
    """Return if a message can contain a task's arguments, given by the names that an error shows.

    Raises:
        InvalidArguments: it is nested deeper than `MAX_DEPTH` levels, holds too many values, or a reserved key.
    """
    _check(parts, MAX_DEPTH + 2, most=MAX_VALUES)


def _check(value: object, deepest: int, *, most: float = float("inf")) -> None:
    # Not recursive: what is refused may be nested endlessly.
    count = 0
    stack: list[tuple[object, int, _Place]] = [(value, 1, None)]
    while stack:
        one, depth, place = stack.pop()
        parts: Iterator[tuple[object, object]]
        if isinstance(one, dict):
            reserved = RESERVED & one.keys()
            if reserved:
                raise InvalidArguments(
                    f"{_path(place)}the key {min(reserved)!r} is reserved; choose another name for it."
                )
            parts = iter(one.items())
        elif isinstance(one, list | tuple):
            parts = enumerate(one)
        else:
            if isinstance(one, int) and one.bit_length() > MAX_BITS:
                raise InvalidArguments(f"{_path(place)}a number of more than 4,000 digits; queue it as text.")
            continue
        if depth > deepest:
            raise InvalidArguments(f"{_path(place)}nested deeper than {MAX_DEPTH} levels; queue flatter data.")
        count += len(one)
        if count > most:
            raise InvalidArguments(f"more than {most} values; store the data and queue its name or id.")
        stack.extend((part, depth + 1, (place, key)) for key, part in parts)


def encode(value: Any) -> str:
    """Return a result as JSON."""
    _check(value, MAX_DEPTH + _ENVELOPE)
    try:
        return str(json.dumps(value))
    except TypeError as error:
        raise TypeError(f"{error}: convert it before it is returned") from error


def encode_message(value: Any) -> str:
    """Return the body of a task's message, which must fit into the memory of every worker of the queue."""
    _check(value, MAX_DEPTH + _ENVELOPE, most=MAX_VALUES)
    text = str(json.dumps(value))
    limit = celery_settings.message_max_bytes
    if len(text) > limit:
        raise InvalidArguments(
            f"{len(text)} bytes of arguments, where CELERY_MESSAGE_MAX_BYTES={limit}; store the data and queue its name or id."
        )
    return text


def decode(text: Any) -> Any:
    """Return the value of JSON; kombu raises the errors of this function as a `DecodeError`."""
    value = json.loads(text)
    _check(value, MAX_DEPTH + _ENVELOPE)
    return value


def _path(place: _Place) -> str:
    keys: list[object] = []
    while place is not None:
        place, key = place
        keys.append(key)
    if not keys:
        return ""
    first, *rest = reversed(keys)
    shown = f"{first}{''.join(f'[{key!r}]' for key in rest[:5])}"
    return f"{shown[:120]}{'…' if len(rest) > 5 or len(shown) > 120 else ''}: "


# Results may be larger than messages, which a worker reads before it knows the task.
register(RESULT, encode, decode, content_type="application/json", content_encoding="utf-8")
# Celery's own name: remote control and events use it too.
register("json", encode_message, decode, content_type="application/json", content_encoding="utf-8")
