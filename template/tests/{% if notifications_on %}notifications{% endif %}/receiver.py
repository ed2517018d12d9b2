"""A webhook receiver: a real HTTP server in a thread, whose responses a test sets."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Response = tuple[int, dict[str, str]]

ACCEPTED: Response = (204, {})


@dataclass(frozen=True)
class Request:
    """A received request and its time."""

    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.headers["webhook-id"]

    @property
    def user_id(self) -> int:
        """The recipient's user id."""
        return int(json.loads(self.body)["user_id"])


@dataclass
class Receiver:
    """Records requests and sends the response that `respond` returns; None closes the connection without one."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    respond: Callable[[Request], Response | None] = lambda _: ACCEPTED
    lock: threading.Lock = field(default_factory=threading.Lock)

    def script(self, *responses: Response | None) -> None:
        """Send these responses in order, then accept all further requests."""
        rest = iter(responses)
        self.respond = lambda _: next(rest, ACCEPTED)

    def handle(self, request: Request) -> Response | None:
        """Record the request and return its response."""
        with self.lock:
            self.requests.append(request)
            response = self.respond(request)
            if response is not None and response[0] < 300:
                self.accepted[request.key] += 1
        return response


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on a free port of this machine."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            receiver.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            response = receiver.handle(Request(headers, body, time.monotonic()))
            if response is None:
                self.close_connection = True
                return
            self.send_response(response[0])
            for name, value in response[1].items():
                self.send_header(name, value)
            if "Content-Length" in response[1]:
                # The body is announced but never sent.
                self.close_connection = True
            elif response[0] != 204:
                self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/notify"
    yield receiver
    server.shutdown()
    server.server_close()
    thread.join()
