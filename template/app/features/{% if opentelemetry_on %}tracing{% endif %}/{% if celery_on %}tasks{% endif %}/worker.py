"""Propagate a trace from the publisher of a task to the task and to the tasks that it publishes."""

from typing import Any

from celery import states
from celery.signals import before_task_publish, task_postrun, task_prerun, worker_process_shutdown, worker_shutdown
from opentelemetry import context, propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from app.features.tracing import provider
from app.features.tracing.tasks.config import tracing_settings
from app.worker.messages import one_of_many
from app.worker.task import current_request

_GROUP = "trace_group"
"""The header that names the group in which a task is, also of a step of a chain in it."""


def connect() -> None:
    """Trace the publishing and running of tasks. Each process starts its exporter on first use, after the fork."""
    before_task_publish.connect(_published, weak=False)
    task_prerun.connect(_started, weak=False)
    task_postrun.connect(_ended, weak=False)
    worker_process_shutdown.connect(_stop, weak=False)
    worker_shutdown.connect(_stop, weak=False)


def _published(sender: str, headers: dict[str, Any], body: Any, routing_key: str | None = None, **_: object) -> None:
    provider.start()
    attributes = {"messaging.destination.name": routing_key or "", **_attributes(headers["id"])}
    name, kind = f"publish {sender}", SpanKind.PRODUCER
    parent, links = None, []
    if tracing_settings.link_fan_outs and _starts_in_fan_out(headers, body):
        parent = trace.set_span_in_context(trace.INVALID_SPAN)
        links = [Link(trace.get_current_span().get_span_context())]
    with trace.get_tracer(__name__).start_as_current_span(name, parent, kind, attributes, links):
        # A retry has the headers of its first attempt; overwrite them.
        propagate.inject(headers)


def _starts_in_fan_out(headers: dict[str, Any], body: Any) -> bool:
    """Return whether a task is one of many that are queued at once, and not a retry or a later step of one."""
    # Only the last step of a chain, which is the first of the list, knows its group.
    steps = body[2].get("chain") if isinstance(body, list | tuple) else None
    group = steps[0]["options"].get("group_id") if steps else headers.get("group")
    if group:
        headers[_GROUP] = group
        return bool(getattr(current_request(), _GROUP, None) != group)
    return one_of_many.get()


def _started(task_id: str, task: Any, **_: object) -> None:
    provider.start()
    carrier = {name: value for name, value in vars(task.request).items() if isinstance(value, str)}
    parent = propagate.extract(carrier)
    attributes = {"celery.retries": task.request.retries, **_attributes(task_id)}
    span = trace.get_tracer(__name__).start_span(task.name, parent, SpanKind.CONSUMER, attributes)
    # Stored on the request, not by task id: with threads, the next attempt may start before this one has ended.
    task.request.traced = span, context.attach(trace.set_span_in_context(span, parent))


def _ended(task: Any, state: str | None = None, retval: object = None, **_: object) -> None:
    span: Span
    span, token = task.request.traced
    context.detach(token)
    span.set_attribute("celery.state", state or "")
    if state == states.FAILURE:
        # Without the message, which may contain personal data.
        span.set_attribute("error.type", type(retval).__qualname__)
        span.set_status(StatusCode.ERROR)
    span.end()


def _stop(**_: object) -> None:
    provider.stop()


def _attributes(task_id: str) -> dict[str, str]:
    return {"messaging.system": "celery", "messaging.message.id": task_id}
