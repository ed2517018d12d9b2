#!/usr/bin/env bash
# opentelemetry-instrumentation-celery 0.66b2: after a task could not be queued, the span of its publishing stays open and current.
#
# The span is made current before the message is sent, and ended by after_task_publish, which Celery sends only after success:
#   it is never exported, and what the same thread or asyncio task does next is traced as its child
# A task that is queued has its span, and none is current afterwards. Catch the error in a separate context, or end the span there.
# Needs bash and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  celery==5.7.0 kombu==5.7.0 opentelemetry-instrumentation-celery==0.66b2 opentelemetry-sdk==1.45.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import contextvars

from celery import Celery
from kombu.exceptions import EncodeError
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

memory = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
CeleryInstrumentor().instrument(tracer_provider=provider)
app = Celery(broker="memory://", set_as_current=True)


@app.task(name="known")
def known(value):
    pass


def after(publish):
    """Return the names of the exported spans, and of the span that is current after publishing."""
    memory.clear()
    publish()
    current = trace.get_current_span()
    return [span.name for span in memory.get_finished_spans()], getattr(current, "name", None)


def refused():
    try:
        known.delay(object())
    except EncodeError:
        return
    raise SystemExit("changed: an object can be queued")


def run(publish):
    return contextvars.Context().run(after, publish)


found = {
    "a task that is queued": run(lambda: known.delay(1)),
    "one that is refused": run(refused),
}
for kind, (exported, current) in found.items():
    print(f"{kind}: exported {exported}, current {current}")
assert found["a task that is queued"] == (["apply_async/known"], None), found
assert found["one that is refused"] == ([], "apply_async/known"), found
PYTHON
