"""Simulated workers: kombu consumers that acknowledge each message at once.

python -m benchmarks.project.consumers project|kombu CONSUMERS QUEUES SECONDS

With `project`, connections are made as the project's workers make them; with `kombu`, by kombu's own defaults. The processes are
forked from one that has imported everything, so that 32 of them start at once. Prints one line of JSON: messages, seconds, and the
milliseconds that a consumer waited for each message.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.queues import Queue as Results
from multiprocessing.synchronize import Barrier
from typing import Any

from kombu import Connection, Consumer, Queue

_PREFETCH = 8
_IDLE = 1.0

Outcome = tuple[float, float, list[float]]
"""When a consumer got its first and its last message, and how long it waited for each, in milliseconds."""


def project_connection() -> Any:
    """Return a connection as the project's workers make it."""
    # Not at the top: it replaces kombu's transport in the whole process.
    from app.core.celery import celery_app

    return celery_app.connection_for_read()


def kombu_connection() -> Any:
    """Return a connection with kombu's defaults."""
    return Connection(os.environ["CELERY_BROKER_URL"])


CONNECT: dict[str, Callable[[], Any]] = {"project": project_connection, "kombu": kombu_connection}


def consume(
    connect: Callable[[], Any], queues: int, seconds: float, start: Barrier, results: "Results[Outcome]"
) -> None:
    """Take messages until the time is over or none has come for a while."""
    waits: list[float] = []
    got: list[float] = []
    asked = time.monotonic()

    def take(_body: object, message: Any) -> None:
        nonlocal asked
        now = time.monotonic()
        waits.append(1000 * (now - asked))
        got.append(now)
        message.ack()
        asked = time.monotonic()

    with connect() as connection:
        names = [Queue(f"bench-{number}", routing_key=f"bench-{number}") for number in range(queues)]
        channel = connection.channel()
        consumer = Consumer(channel, queues=names, callbacks=[take], accept=["json"], prefetch_count=_PREFETCH)
        connection.ensure_connection()
        start.wait(120)
        deadline = time.monotonic() + seconds
        with consumer:
            asked = time.monotonic()
            while time.monotonic() < deadline:
                try:
                    connection.drain_events(timeout=_IDLE)
                except TimeoutError:
                    break
        results.put((got[0], got[-1], waits) if got else (0.0, 0.0, []))


def main() -> None:
    """Run the consumers and print what they got."""
    connect, consumers, queues, seconds = CONNECT[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    # Imports what the processes need.
    connect()
    fork = multiprocessing.get_context("fork")
    start, results = fork.Barrier(consumers), fork.Queue()
    processes = [
        fork.Process(target=consume, args=(connect, queues, seconds, start, results)) for _ in range(consumers)
    ]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=120 + seconds) for _ in processes]
    for process in processes:
        process.join(30)
    busy = [one for one in outcomes if one[2]]
    waits = [wait for _, _, several in busy for wait in several]
    first, last = min(one[0] for one in busy), max(one[1] for one in busy)
    print(json.dumps({"messages": len(waits), "seconds": last - first, "waits": waits}))


main()
