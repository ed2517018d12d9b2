"""Redis commands of `async def` code, without a thread: the callers of an event loop share a connection and its round trips."""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from app.core.config.celery import celery_settings
from app.core.config.redis_url import for_redis_py

Command = tuple[Any, ...]
"""A command and its arguments, such as `("LPUSH", key, value)`."""

_MAX_WAITING = 10_000
"""Calls that may wait for a frozen Redis; each is given up after `CELERY_PUBLISH_TIMEOUT`."""


@dataclass(slots=True)
class Commands:
    """Each `Command` in the order in which they run, or the replies to them. Those for one server are one round trip."""

    before: list[Any] = field(default_factory=list)
    """In the result store, before those of the broker."""
    broker: list[Any] = field(default_factory=list)
    after: list[Any] = field(default_factory=list)
    """In the result store."""

    def only(self, *parts: str) -> "Commands":
        """Return the commands of some parts."""
        return Commands(**{name: getattr(self, name) for name in parts})


_PARTS = ("before", "broker", "after")


async def execute(commands: Commands) -> Commands:
    """Run the commands and return the replies; what Redis refused, or did not answer, has its exception as the reply."""
    connections = await _connections()
    if connections.broker is connections.results:
        return await connections.broker.execute(commands)
    # A task is queued while the result store is frozen: looking at its memory and recording the task leave time for that.
    limit = celery_settings.publish_timeout / 3
    before = await _within(limit, connections.results, commands.only("before"))
    broker = await connections.broker.execute(commands.only("broker"))
    after = await _within(limit, connections.results, commands.only("after"))
    return Commands(before.before, broker.broker, after.after)


def failures(replies: Iterable[Any]) -> Iterator[Exception]:
    """Return the exceptions among replies."""
    return (reply for reply in replies if isinstance(reply, Exception))


def is_one_server() -> bool:
    """Return whether the broker and the result store are databases of one server, and used with the same login."""
    return _server(_broker_url()) == _server(_results_url())


def results_connection() -> Any:
    """Return a new connection to the result store, which is not connected yet, for a subscription."""
    client: Any = _client(_results_url())
    return client.connection_pool.make_connection()


async def _within(seconds: float, connection: "_Connection", commands: Commands) -> Commands:
    try:
        async with asyncio.timeout(seconds):
            return await connection.execute(commands)
    except TimeoutError as error:
        return _refused(commands, error)


def _encoded(command: Command) -> Command:
    """Return the command; what cannot be sent is an error of its caller, and not of all that share the round trip."""
    name, *arguments = command
    if not all(isinstance(one, str | bytes | int | float) for one in arguments):
        raise TypeError(f"{name} has an argument that is no text, bytes or number")
    return (name, *(one.encode() if isinstance(one, str) else one for one in arguments))


def _refused(commands: Commands, error: Exception) -> Commands:
    return Commands(*([error] * len(getattr(commands, part)) for part in _PARTS))


class _Connection:
    """One connection of one event loop: a round trip has all commands that came during the last one."""

    def __init__(self, url: str, databases: dict[str, int] | None = None) -> None:
        self._databases = databases
        self._client = _client(url)
        self._waiting: list[tuple[Commands, asyncio.Future[Commands]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def execute(self, commands: Commands) -> Commands:
        if not any(getattr(commands, part) for part in _PARTS):
            return commands
        if len(self._waiting) >= _MAX_WAITING:
            return _refused(commands, RedisConnectionError(f"{_MAX_WAITING} calls already wait for Redis"))
        commands = Commands(*([_encoded(one) for one in getattr(commands, part)] for part in _PARTS))
        loop = asyncio.get_running_loop()
        replies: asyncio.Future[Commands] = loop.create_future()
        self._waiting.append((commands, replies))
        if self._sender is None or self._sender.done():
            # Not in the context of the first of its callers.
            self._sender = loop.create_task(self._send(), context=contextvars.Context())
        return await replies

    async def _send(self) -> None:
        calls: list[tuple[Commands, asyncio.Future[Commands]]] = []
        try:
            while self._waiting:
                # The requests that are ready now come too.
                await asyncio.sleep(0)
                # Without those that were given up before they were sent.
                calls = [call for call in self._waiting if not call[1].done()]
                self._waiting = []
                for (_, replies), own in zip(calls, await self._trip([one for one, _ in calls]), strict=True):
                    if not replies.done():
                        replies.set_result(own)
        finally:
            # Only if the loop ends: nobody waits without an answer.
            for _, replies in calls + self._waiting:
                replies.cancel()

    async def _trip(self, calls: list[Commands]) -> list[Commands]:
        parts = {part: [command for call in calls for command in getattr(call, part)] for part in _PARTS}
        pipe = self._client.pipeline(transaction=False)
        for part, commands in parts.items():
            if commands and self._databases:
                pipe.execute_command("SELECT", self._databases[part])
            for command in commands:
                pipe.execute_command(*command)
        try:
            # Cheaper than a timeout of the socket, which is one for each reply.
            async with asyncio.timeout(celery_settings.publish_timeout):
                replies = iter(await pipe.execute(raise_on_error=False))
        except (RedisError, OSError) as error:
            return [_refused(call, error) for call in calls]
        answers: dict[str, Iterator[Any]] = {}
        for part, commands in parts.items():
            selected = next(replies) if commands and self._databases else None
            own = [next(replies) for _ in commands]
            # In a database that was not selected they ran in another one, where nobody looks.
            answers[part] = iter([selected] * len(own) if isinstance(selected, Exception) else own)
        return [Commands(*([next(answers[part]) for _ in getattr(call, part)] for part in _PARTS)) for call in calls]

    async def close(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
        await self._client.aclose()


class _Connections:
    """The connections of one event loop, closed when `asyncio.run` ends: it closes all generators that are still open."""

    def __init__(self) -> None:
        broker, results = _broker_url(), _results_url()
        if is_one_server():
            databases = dict.fromkeys(_PARTS, _database(results)) | {"broker": _database(broker)}
            self.broker = self.results = _Connection(broker, databases)
        else:
            self.broker, self.results = _Connection(broker), _Connection(results)
        self.closing = self._close_with_loop()

    async def _close_with_loop(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            for connection in {self.broker, self.results}:
                await connection.close()


_loops: dict[asyncio.AbstractEventLoop, _Connections] = {}


async def _connections() -> _Connections:
    loop = asyncio.get_running_loop()
    known = _loops.get(loop)
    if known is not None:
        return known
    # A copy: other threads have event loops too.
    for other in list(_loops):
        if other.is_closed():
            _loops.pop(other, None)
    connections = _loops[loop] = _Connections()
    await anext(connections.closing)
    return connections


def _client(url: str) -> "redis.asyncio.Redis":
    return redis.asyncio.Redis.from_url(
        for_redis_py(url),
        # As kombu: a connection that Redis has closed is opened again, once.
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        socket_timeout=None,
        socket_connect_timeout=celery_settings.publish_timeout,
        socket_keepalive=True,
        health_check_interval=15,
        client_name="app",
    )


def _broker_url() -> str:
    return celery_settings.broker_url.get_secret_value()


def _results_url() -> str:
    return celery_settings.result_backend.get_secret_value()


def _server(url: str) -> tuple[SplitResult, list[tuple[str, str]]]:
    parts = urlsplit(url)
    return parts._replace(path="", query=""), sorted(parse_qsl(parts.query))


def _database(url: str) -> int:
    return int(urlsplit(url).path.strip("/") or 0)
