"""The only way to the Redis clients of the broker and of the result store; `async def` code also has `pipeline`."""

import asyncio
import hashlib
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ParamSpec, TypeVar

from celery import current_app
from kombu.exceptions import LimitExceeded, OperationalError
from redis.commands.core import Script
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from app.core.config.celery import celery_settings
from app.core.threads import BoundedThreads, ThreadsBusy

P = ParamSpec("P")
R = TypeVar("R")

OUTAGES = (RedisError, OperationalError, OSError)
"""What a call raises when Redis is unreachable or refuses it; it may succeed later."""

# While Redis is frozen a thread is occupied until its socket times out, long after its request was answered: further requests
# then wait for a thread and start none.
_THREADS = BoundedThreads("queue", 16, max_waiting=10_000, max_wait=celery_settings.publish_timeout)


class QueueUnavailable(Exception):
    """Redis did not answer in time. A task that was being queued may still run."""


@contextmanager
def broker_channel() -> Iterator[Any]:
    """Give a kombu channel on a connection of the application's pool.

    Not to be used: `channel.client`, which waits for a message for up to a second after somebody has consumed on the channel.

    Raises:
        kombu.exceptions.LimitExceeded, kombu.exceptions.OperationalError: no connection within 2 s.
    """
    pool: Any = current_app.pool
    with pool.acquire(block=True, timeout=2) as connection:
        yield connection.default_channel


@contextmanager
def broker_client() -> Iterator[Any]:
    """Give the Redis client of the broker's database; raises what `broker_channel` raises."""
    with broker_channel() as channel, channel.conn_or_acquire() as client:
        yield client


@contextmanager
def own_channel() -> Iterator[Any]:
    """Give a kombu channel on a separate connection, for a thread that uses it for long."""
    with current_app.connection_for_write() as connection:
        yield connection.default_channel


def results_client() -> Any:
    """Return the Redis client of the result store's database."""
    backend: Any = current_app.backend
    return backend.client


class LuaScript:
    """A Lua script; see `lua_script`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._script: Any = Script(None, text.encode())  # type: ignore[arg-type]

    def __call__(self, client: Any, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run the script on a client."""
        return self._script(keys, args, client)

    def command(self, keys: Sequence[Any], args: Sequence[Any]) -> tuple[Any, ...]:
        """Return the command that runs the script, for a pipeline; Redis may not know the text: see `with_text`."""
        return "EVALSHA", self._script.sha, len(keys), *keys, *args

    def with_text(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a command of this script that Redis also runs when it does not know the text."""
        return "EVAL", self.text, *command[2:]


def lua_script(text: str) -> LuaScript:
    """Return a script, whose text Redis gets only once."""
    return LuaScript(text)


class _Kept:
    """A connection that a thread keeps; its pool gets it back when the thread has ended."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.connection = pool.get_connection()
        weakref.finalize(self, pool.release, self.connection).atexit = False


class _Thread(threading.local):
    kept: _Kept | None = None


_thread = _Thread()


def _forget() -> None:
    _thread.kept = None


os.register_at_fork(after_in_child=_forget)


def kept_lua_script(text: str) -> Callable[[Any, Sequence[Any], Sequence[Any]], Any]:
    """Return a function like that of `lua_script` that uses one connection in each thread, for a script that may run twice.

    redis-py's pool and retries cost as much CPU time as the command itself.
    """
    pooled = lua_script(text)
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(client: Any, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        kept = _thread.kept
        if kept is None or kept.pool is not client.connection_pool:
            kept = _thread.kept = _Kept(client.connection_pool)
        connection = kept.connection
        try:
            connection.send_command("EVALSHA", sha, len(keys), *keys, *args)
            return connection.read_response()
        except (RedisConnectionError, NoScriptError):
            # Redis has closed it, or has restarted.
            connection.disconnect()
        except BaseException:
            # The next command would take an answer that was not read for its own.
            connection.disconnect()
            raise
        return pooled(client, keys, args)

    return run


def result_key(task_id: str) -> bytes:
    """Return the key under which the result store has a task's state."""
    backend: Any = current_app.backend
    return bytes(backend.get_key_for_task(task_id))


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function that calls Redis in a thread, for at most `CELERY_PUBLISH_TIMEOUT` seconds.

    Raises:
        QueueUnavailable: Redis refused or did not answer in that time.
    """
    async with within_limit():
        return await _THREADS.run(function, *args, **kwargs)


@asynccontextmanager
async def within_limit() -> AsyncIterator[None]:
    """Limit what the block awaits to `CELERY_PUBLISH_TIMEOUT` seconds.

    Raises:
        QueueUnavailable: Redis refused or did not answer in that time.
    """
    try:
        async with asyncio.timeout(celery_settings.publish_timeout):
            yield
    except (TimeoutError, ThreadsBusy, LimitExceeded, OperationalError, RedisError) as error:
        raise QueueUnavailable("The task queue does not answer; try again later.") from error


async def check_queue() -> None:
    """Return when the broker answers.

    Raises:
        QueueUnavailable: see `in_thread`.
    """
    await in_thread(_ping)


def _ping() -> None:
    with broker_client() as client:
        client.ping()
