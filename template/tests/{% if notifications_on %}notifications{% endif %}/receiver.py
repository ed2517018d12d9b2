"""A receiver of webhooks: a real HTTP server in a thread, which fails as it is told to."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str]]

TAKEN: Answer = (204, {})


@dataclass(frozen=True)
class Request:
    """What was posted, and when."""

    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.headers["webhook-id"]

    @property
    def user_id(self) -> int:
        """The user whom it is for."""
        return int(json.loads(self.body)["user_id"])


@dataclass
class Receiver:
    """Keeps each request and answers what `answer` returns for it; None hangs up without an answer."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    answer: Callable[[Request], Answer | None] = lambda _: TAKEN
    lock: threading.Lock = field(default_factory=threading.Lock)

    def script(self, *answers: Answer | None) -> None:
        """Give these answers one after the other, and take what comes then."""
        rest = iter(answers)
        self.answer = lambda _: next(rest, TAKEN)

    def handle(self, request: Request) -> Answer | None:
        """Note the request and return its answer."""
        with self.lock:
            self.requests.append(request)
            answer = self.answer(request)
            if answer is not None and answer[0] < 300:
                self.taken[request.key] += 1
        return answer


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
            answer = receiver.handle(Request(headers, body, time.monotonic()))
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer[0])
            for name, value in answer[1].items():
                self.send_header(name, value)
            if "Content-Length" in answer[1]:
                # Promised, and never sent.
                self.close_connection = True
            elif answer[0] != 204:
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
