"""One trace from a request through its task to the tasks that it publishes, sent to a real OTLP receiver."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from celery import chain
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.conftest import FAST
from tests.e2e.processes import start_api, start_worker, wait_until
from tests.sink import Sink, sink

PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def collector() -> Iterator[Sink]:
    """Run a collector."""
    with sink() as running:
        yield running


def variables(collector: Sink) -> dict[str, str]:
    """Return OpenTelemetry's variables for the collector."""
    return {**FAST, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.host}", "OTEL_BSP_SCHEDULE_DELAY": "200"}


def spans(collector: Sink) -> list[tuple[Any, str]]:
    """Return the received spans, each with the service name of its process."""
    found = []
    for path, body in list(collector.requests):
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            found += [(span, names["service.name"]) for scope in resource.scope_spans for span in scope.spans]
    return found


def trace(collector: Sink, trace_id: str, number: int) -> dict[str, Any]:
    """Wait until a trace has `number` spans and return them by name."""

    def complete() -> list[Any]:
        mine = [span for span, _ in spans(collector) if span.trace_id.hex() == trace_id]
        return mine if len(mine) >= number else []

    found = wait_until(complete, 30, f"{number} spans of {trace_id}; there are {[s.name for s, _ in spans(collector)]}")
    assert len(found) == number, [span.name for span in found]
    return {span.name: span for span in found}


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_one_trace_from_the_request_to_its_task(broker: Any, collector: Sink, tmp_path: Path, pool: str) -> None:
    worker = start_worker(tmp_path / "worker.log", pool=pool, **variables(collector))
    api, address = start_api(tmp_path / "api.log", **variables(collector), OTEL_SERVICE_NAME="the-api")
    try:
        headers = {"traceparent": f"00-{PARENT}-00f067aa0ba902b7-01"}
        response = httpx.post(f"{address}/process", json={"a": 1}, headers=headers, timeout=30)
        assert response.json()["status"] == "completed", response.text
        assert httpx.get(f"{address}/health").status_code == 200
        found = trace(collector, PARENT, 3)
        request, published, task = found["POST /process"], found["publish process_task"], found["process_task"]
        assert request.parent_span_id.hex() == "00f067aa0ba902b7"
        assert published.parent_span_id == request.span_id
        assert task.parent_span_id == published.span_id
        attributes = {a.key: a.value.string_value for a in task.attributes}
        assert attributes["messaging.message.id"] == response.json()["task_id"]
        assert attributes["celery.state"] == "SUCCESS"
    finally:
        # The remaining spans are sent when the processes stop.
        api.stop()
        worker.stop()
    services = {span.name: service for span, service in spans(collector)}
    assert services["POST /process"] == "the-api"
    assert services["process_task"] != "the-api"
    assert "GET /health" not in services
    for text in (api.text(), worker.text()):
        assert "Traceback" not in text, text


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_retries_and_the_steps_of_a_chain_are_in_the_trace(
    broker: Any, collector: Sink, tmp_path: Path, pool: str, probe_task: Any
) -> None:
    worker = start_worker(tmp_path / "worker.log", pool=pool, **variables(collector))
    # As if a request published the chain.
    parent = {"traceparent": f"00-{PARENT}-00f067aa0ba902b7-01"}
    try:
        steps = chain(probe_task("async_retry").si().set(headers=parent), probe_task("fail").si())
        steps.apply_async()
        wait_until(lambda: "fail" in str([span.name for span, _ in spans(collector)]), 30, "the last step")
        found = trace(collector, PARENT, 7)
    finally:
        worker.stop()
    # Three attempts: each is published by the one before, and the next step of the chain by the last one.
    runs = [span for span, _ in spans(collector) if span.name == "probe.async_retry"]
    assert len(runs) == 3
    assert found["publish probe.fail"].parent_span_id in {span.span_id for span in runs}
    assert found["probe.fail"].parent_span_id == found["publish probe.fail"].span_id
    attributes = {a.key: a.value.string_value for a in found["probe.fail"].attributes}
    assert attributes["error.type"] == "ValueError"
    assert "as it should" not in str(found["probe.fail"])


def test_nothing_is_traced_without_an_endpoint(broker: Any, tmp_path: Path) -> None:
    worker = start_worker(tmp_path / "worker.log", **FAST)
    api, address = start_api(tmp_path / "api.log", **FAST)
    try:
        assert httpx.post(f"{address}/process", json={}, timeout=30).json()["status"] == "completed"
    finally:
        api.stop()
        worker.stop()
    for text in (api.text(), worker.text()):
        assert "opentelemetry" not in text.lower(), text
        assert '"level": "error"' not in text, text


def test_an_unreachable_collector_does_not_delay_requests(broker: Any, collector: Sink, tmp_path: Path) -> None:
    unreachable = {**variables(collector), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    worker = start_worker(tmp_path / "worker.log", **unreachable)
    api, address = start_api(tmp_path / "api.log", **unreachable)
    try:
        for _ in range(20):
            response = httpx.post(f"{address}/process", json={}, timeout=5)
            assert response.json()["status"] == "completed"
    finally:
        api.process.terminate()
        worker.process.terminate()
        assert api.process.wait(15) is not None
        assert worker.process.wait(15) is not None
        api.stop()
        worker.stop()
