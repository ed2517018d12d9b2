"""Which spans are in one trace when many tasks are queued at once."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.core.celery import celery_app
from app.features.tracing.tasks.config import tracing_settings
from app.tasks.process_task import process_task
from app.worker import dead_letters, flow_control, replay
from app.worker.flow_control import Rate
from app.worker.publish import enqueue, enqueue_many
from app.worker.task import AppTask
from tests.worker.fixtures import Drain
from tests.worker.test_dead_letters import received

pytestmark = pytest.mark.anyio


def _retry_once(self: AppTask, *_: Any) -> None:
    if not self.request.retries:
        raise self.retry(countdown=0)


@pytest.fixture
def member() -> Iterator[Any]:
    """Give a task that retries once."""
    made = celery_app.task(name="test.member", bind=True)(_retry_once)
    yield celery_app.tasks["test.member"]
    celery_app.tasks.unregister(made)


@pytest.fixture
def limited() -> Iterator[Any]:
    """Give a task that `enqueue_many` queues one after the other."""
    made = celery_app.task(name="test.limited", bind=True, rate=Rate(10, 60))(_retry_once)
    yield celery_app.tasks["test.limited"]
    celery_app.tasks.unregister(made)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> InMemorySpanExporter:
    """Give what is traced, with or without links."""
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    monkeypatch.setattr(tracing_settings, "link_fan_outs", getattr(request, "param", True))
    return memory


def _sizes(exporter: InMemorySpanExporter) -> list[int]:
    """Return how many spans each trace has; the first is that of the request."""
    spans = exporter.get_finished_spans()
    traces: dict[int, list[ReadableSpan]] = {}
    for span in spans:
        traces.setdefault(span.context.trace_id, []).append(span)
    (request,) = [span for span in spans if span.name == "request"]
    own = traces.pop(request.context.trace_id)
    for members in traces.values():
        (first,) = [span for span in members if span.parent is None]
        assert first.name.startswith("publish ")
        assert [link.context.span_id for link in first.links] == [request.context.span_id]
        assert not any(span.links for span in members if span is not first)
    return [len(own), *sorted(map(len, traces.values()))]


WORKFLOWS: dict[str, tuple[Any, list[int]]] = {
    # Two attempts, each with a span for its publishing and one for its run.
    "group": (lambda task: group(task.si() for _ in range(3)), [1, 4, 4, 4]),
    "group of chains": (lambda task: group(chain(task.si(), task.si(), task.si()) for _ in range(2)), [1, 12, 12]),
    "chord": (lambda task: chord([task.si(), task.si()], task.si()), [1, 4, 8]),
    "chunks": (lambda _: process_task.chunks([({},)] * 3, 2).group(), [1, 2, 2]),
    "one task": (lambda task: task.si(), [5]),
    "chain": (lambda task: chain(task.si(), task.si()), [9]),
}


@pytest.mark.parametrize("name", WORKFLOWS)
async def test_each_member_has_a_trace_that_is_linked_to_what_queued_it(
    name: str, member: Any, exporter: InMemorySpanExporter, drain: Drain
) -> None:
    make, expected = WORKFLOWS[name]
    with trace.get_tracer("test").start_as_current_span("request"):
        await enqueue(make(member))
    drain()
    assert _sizes(exporter) == expected


@pytest.mark.parametrize("kind", ["member", "limited"])
async def test_each_of_many_tasks_has_a_trace(
    kind: str, exporter: InMemorySpanExporter, drain: Drain, request: pytest.FixtureRequest
) -> None:
    task = request.getfixturevalue(kind)
    with trace.get_tracer("test").start_as_current_span("request"):
        await enqueue_many([task.s(), task.s()])
        await enqueue(task.s())
    drain()
    assert _sizes(exporter) == [5, 4, 4]


@pytest.mark.parametrize("exporter", [False], indirect=True)
async def test_all_are_in_one_trace_unless_it_is_set(member: Any, exporter: InMemorySpanExporter, drain: Drain) -> None:
    with trace.get_tracer("test").start_as_current_span("request"):
        await enqueue(group(member.si() for _ in range(2)))
        await enqueue_many([member.s(), member.s()])
    drain()
    assert _sizes(exporter) == [17]


@pytest.mark.parametrize("body", [None, b"\xff"], ids=["JSON", "unknown"])
async def test_the_replay_of_a_dead_letter_is_traced(body: bytes | None, exporter: InMemorySpanExporter) -> None:
    client: Any = flow_control.client()
    client.flushdb()
    message = received()
    message.body = body or message.body
    dead_letters.keep(message, ValueError("no"))
    with trace.get_tracer("test").start_as_current_span("request"):
        assert replay.replay(client, dead_letters.letters(client)[0].letter_id)
    assert _sizes(exporter) == [2]
    client.flushdb()
