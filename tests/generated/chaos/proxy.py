"""A TCP proxy that cuts connections in the middle of replies."""

from __future__ import annotations

import contextlib
import socket
import threading

_SIZE = 65536


class CuttingProxy:
    """Passes connections on to a port of this machine."""

    def __init__(self, target: int) -> None:
        self.cuts = 0
        self._target = target
        self._wanted = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close the next connection that gets a reply with messages, with half of the reply passed on."""
        with self._lock:
            self._wanted += 1

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                for one, other, replies in ((client, server, False), (server, client, True)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pass_on, args=(one, other, replies), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_SIZE):
                if replies and b'"body"' in data and self._may_cut():
                    target.sendall(data[: len(data) // 2])
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _may_cut(self) -> bool:
        with self._lock:
            if not self._wanted:
                return False
            self._wanted -= 1
            self.cuts += 1
            return True
