#!/usr/bin/env bash
# celery 5.7.0: `celery control time_limit` changes a task in the workers, and has no effect where the application has limits.
#
# With task_time_limit=300 and task_soft_time_limit=270 every message carries [300, 270], although the task names no limit.
# The control command sets the task's own limits to 2 and 1 and answers ok. A request prefers its message's limits:
#   request.time_limits == [300, 270], task.time_limit == 2
# To change limits for queued tasks, change the application's settings and queue again.
# Needs bash and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  celery==5.7.0 kombu==5.7.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from types import SimpleNamespace

from celery import Celery
from celery.worker.control import time_limit
from celery.worker.request import Request

app = Celery(broker="memory://", set_as_current=True)
app.conf.update(task_time_limit=300, task_soft_time_limit=270)


@app.task(name="work")
def work():
    pass


work.delay()
answer = time_limit(SimpleNamespace(app=app), task_name="work", hard=2, soft=1)
with app.connection_for_read() as connection:
    message = connection.SimpleQueue("celery").get(timeout=5)
    request = Request(message, app=app)
    print("answer:", answer, "task:", (work.time_limit, work.soft_time_limit), "request:", request.time_limits)
    assert "ok" in answer
    assert (work.time_limit, work.soft_time_limit) == (2, 1)
    assert list(request.time_limits) == [300, 270]
    message.ack()
PYTHON
