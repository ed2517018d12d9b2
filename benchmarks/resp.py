"""A minimal client of a Redis server, so that this repository needs no Redis package."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

Argument = str | bytes | int | float


class ServerError(Exception):
    """The server refused a command."""


class Client:
    """One connection; commands are sent in pipelines."""

    def __init__(self, port: int, database: int = 0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._replies = self._socket.makefile("rb")
        if database:
            self("SELECT", database)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._replies.close()
        self._socket.close()

    def __call__(self, *command: Argument) -> Any:
        """Send one command and return its reply."""
        return self.pipeline([command])[0]

    def pipeline(self, commands: Sequence[Iterable[Argument]]) -> list[Any]:
        """Send commands in one write and return their replies."""
        self._socket.sendall(b"".join(encode(*command) for command in commands))
        return [self._reply() for _ in commands]

    def scan(self, pattern: str = "*") -> list[bytes]:
        """Return the keys that match `pattern`."""
        keys: set[bytes] = set()
        cursor: bytes = b"0"
        while True:
            cursor, found = self("SCAN", cursor, "MATCH", pattern, "COUNT", 5000)
            keys.update(found)
            if cursor == b"0":
                return list(keys)

    def _reply(self) -> Any:
        kind, rest = self._line()
        match kind:
            case b"+":
                return rest
            case b"-":
                raise ServerError(rest.decode())
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else self._replies.read(int(rest) + 2)[:-2]
            case b"*":
                return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise ServerError(f"the server sent {kind + rest!r}")

    def _line(self) -> tuple[bytes, bytes]:
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ServerError("the server closed the connection")
        return line[:1], line[1:-2]


def encode(*command: Argument) -> bytes:
    """Return a command in Redis's protocol."""
    parts = [one if isinstance(one, bytes) else str(one).encode() for one in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
