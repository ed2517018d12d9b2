"""Celery builds and sends a task's message in `async def` code: what its last step sends is collected and sent without a thread.

`on_loop` runs Celery's own code in a greenlet, as SQLAlchemy's asyncio extension does with its own: so signals, headers,
routing, and what wraps `apply_async`, are those of `.delay()`, and `after_task_publish` is sent when Redis has the message.
"""

import functools
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from celery import current_app
from kombu import Producer
from kombu.transport import redis, virtual

from app.worker.broker import in_thread
from app.worker.pipeline import Command, Commands, execute

R = TypeVar("R")


class Send(Protocol):
    """Waits until Redis has run the commands of the record and of the message."""

    def __call__(self, record: list[Command], message: list[Command], /) -> Awaitable[None]: ...


class _Collected(NamedTuple):
    record: list[Command]
    message: list[Command]
    undo: list[Command]
    send: Send
    only_direct: bool


class Collected(NamedTuple, Generic[R]):
    """What publishing a task would have sent."""

    result: R
    record: list[Command]
    message: Command | None
    """None if `apply_async` returned another task instead (`flow_control.Duplicate`)."""
    undo: list[Command]
    """What the broker must be sent if the message is not."""


one_of_many: ContextVar[bool] = ContextVar("one_of_many", default=False)
"""Whether the task that is being published is one of `enqueue_many`."""

_collected: ContextVar[_Collected | None] = ContextVar("collected_message", default=None)


async def on_loop(apply_async: Callable[..., R], send: Send, *, only_direct: bool = False, **options: Any) -> R:
    """Call `apply_async` without blocking the event loop, and return what it returns.

    Args:
        apply_async: publishes one task; gets the options, and the producer that collects its message.
        send: sends the message.
        only_direct: whether to refuse a message that cannot be collected, instead of sending it from a thread.
        options: the other options of `apply_async`.

    Raises:
        ValueError: the message cannot be collected.
    """
    return await _spawn(apply_async, _Collected([], [], [], send, only_direct), options)


async def collect(apply_async: Callable[..., R], **options: Any) -> Collected[R]:
    """Return what `apply_async` returns, with the commands that record the task and queue it. Nothing is sent.

    Raises:
        ValueError: the message cannot be collected.
    """
    made = _Collected([], [], [], _send_nothing, only_direct=True)
    result = await _spawn(apply_async, made, options)
    return Collected(result, made.record, made.message[0] if made.message else None, made.undo)


def undo_if_not_sent(command: Command) -> None:
    """Have the broker sent a command if the message that is being published is only collected, and then not sent."""
    collected = _collected.get()
    if collected is not None:
        collected.undo.append(command)


def collect_record(commands: list[Command]) -> bool:
    """Return whether the record of the task that is being published is sent together with its message."""
    collected = _collected.get()
    if collected is None:
        return False
    collected.record.extend(commands)
    return True


def is_on_loop() -> bool:
    """Return whether the code runs in `on_loop`, and must use `run` and `wait_for` instead of what blocks."""
    return _collected.get() is not None


def run(command: Command) -> Any:
    """Return the broker's reply to a command, in `on_loop`.

    Raises:
        redis.exceptions.RedisError: Redis refused, or does not answer.
    """
    reply = wait_for(execute(Commands(broker=[command]))).broker[0]
    if isinstance(reply, Exception):
        raise reply
    return reply


def wait_for(awaitable: Awaitable[R]) -> R:
    """Wait without blocking the event loop, in `on_loop`."""
    from sqlalchemy.util.concurrency import await_  # noqa: PLC0415 - see on_loop

    result: R = await_(awaitable)
    return result


class Keys:
    """The names of kombu's keys."""

    def __init__(self, channel: Any) -> None:
        self.unacked: str = channel.unacked_key
        self.unacked_index: str = channel.unacked_index_key
        self._channel = channel

    def ending(self, priority: object) -> str:
        """Return the end of the name of a queue's list, after that of the queue."""
        return str(self._channel._q_for_pri("", priority if isinstance(priority, int) else 0))  # noqa: SLF001

    @property
    def endings(self) -> list[str]:
        """The endings of all priorities but the first, whose list has the queue's name."""
        return [found for found in map(self.ending, self._channel.priority_steps) if found]

    def queue(self, name: str) -> str:
        """Return the queue of a list."""
        return name.partition(self._channel.sep)[0]


@functools.cache
def keys() -> Keys:
    """Return the names of kombu's keys."""
    return Keys(_producer(os.getpid()).channel)


async def _send_nothing(_record: list[Command], _message: list[Command]) -> None:
    pass


async def _spawn(apply_async: Callable[..., R], collected: _Collected, options: dict[str, Any]) -> R:
    # Only the API publishes on an event loop; a worker would import all of SQLAlchemy for it.
    from sqlalchemy.util.concurrency import greenlet_spawn  # noqa: PLC0415

    return await greenlet_spawn(_apply, apply_async, collected, options)


def _apply(apply_async: Callable[..., R], collected: _Collected, options: dict[str, Any]) -> R:
    token = _collected.set(collected)
    try:
        return apply_async(producer=_producer(os.getpid()), **options)
    finally:
        _collected.reset(token)


def _current() -> _Collected:
    collected = _collected.get()
    if collected is None:
        raise RuntimeError("messages are collected only in on_loop()")
    return collected


class _Client:
    """What kombu's `_put` calls to send a message."""

    def __init__(self, prefix: str, messages: list[Command]) -> None:
        self._prefix = prefix
        self._messages = messages

    def lpush(self, key: str, message: str) -> None:
        self._messages.append(("LPUSH", f"{self._prefix}{key}", message))


class _CollectingChannel(redis.Channel):
    """Kombu's channel, whose messages, keys and priorities stay kombu's; it never connects."""

    def __init__(self, connection: Any) -> None:
        # Not kombu's Redis channel's own, which connects.
        virtual.Channel.__init__(self, connection)
        self._expires: dict[str, int] = {}

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        yield _Client(self.global_keyprefix, _current().message)


class _CollectingProducer(Producer):
    """Kombu's producer, which waits for `send` instead of a socket."""

    def publish(
        self, body: Any, *, exchange: Any = None, declare: Any = None, retry: Any = None, **options: Any
    ) -> None:
        """Build the message and wait until it is sent. Its queue is not declared: workers do that."""
        from sqlalchemy.util.concurrency import await_  # noqa: PLC0415 - see on_loop

        collected = _current()
        if not exchange:
            super().publish(body, exchange=exchange, **options)
            await_(collected.send(collected.record, collected.message))
            return
        # The queues of a named exchange are found in Redis. This project's have the default exchange.
        if collected.only_direct and exchange == current_app.conf.event_exchange:
            # Of `task_send_sent_event`. After an error, Celery would keep the event for ever.
            return
        if collected.only_direct:
            raise ValueError(f"the queue has the exchange {exchange!r}; use enqueue for this task.")
        await_(in_thread(_publish_now, body, exchange=exchange, declare=declare, retry=retry, **options))


def _publish_now(body: Any, **options: Any) -> None:
    app: Any = current_app
    with app.producer_or_acquire() as producer:
        producer.publish(body, **options)


# A fork has a parent's producer, but not its connection's lock.
@functools.lru_cache(maxsize=1)
def _producer(_pid: int) -> _CollectingProducer:
    connection = current_app.connection_for_write()
    return _CollectingProducer(_CollectingChannel(connection.transport), auto_declare=False)
