#!/usr/bin/env bash
# celery 5.7.0 refuses a task's own `time_limit` where the application has a longer `task_soft_time_limit`.
#
# With task_soft_time_limit=270 a task declared with time_limit=3 alone keeps 270 as its soft limit. The declaration
# passes, and so does `apply_async(time_limit=2)` of a task without limits of its own; `.delay()` of the first raises
#   ValueError: soft_time_limit must be less than or equal to time_limit
# and with it every chain, chord and beat entry that holds it. The per-call message carries [2, 270]: the soft limit is the
# application's, and above the hard one.
# A hard limit therefore needs a soft one beside it: time_limit=3, soft_time_limit=2.
# Needs bash and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  celery==5.7.0 kombu==5.7.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from celery import Celery

app = Celery(broker="memory://", set_as_current=True)
app.conf.update(task_time_limit=300, task_soft_time_limit=270)


@app.task(name="short", time_limit=3)
def short():
    pass


@app.task(name="both", time_limit=3, soft_time_limit=2)
def both():
    pass


@app.task(name="plain")
def plain():
    pass


try:
    short.delay()
except ValueError as error:
    print("delay:", error)
else:
    raise SystemExit("changed: a hard limit alone is accepted")
both.delay()
plain.apply_async(time_limit=2)
with app.connection_for_read() as connection:
    queue = connection.SimpleQueue("celery")
    limits = {}
    while queue.qsize():
        headers = queue.get(timeout=1).headers
        limits[headers["task"]] = headers["timelimit"]
print("timelimit headers [hard, soft]:", limits)
assert limits == {"both": [3, 2], "plain": [2, 270]}, limits
PYTHON
