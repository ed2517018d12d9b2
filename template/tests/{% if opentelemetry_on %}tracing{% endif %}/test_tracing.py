"""When a process is traced, and the spans of a request."""

import os
import subprocess
import sys

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import ROOT
from tests.sink import sink

SCRIPT = """
import asyncio, httpx2 as httpx
from app.features.tracing import provider as tracing
from app.main import app

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for path in ("/health", "/ready", "/openapi.json"):
            await client.get(path)

asyncio.run(main())
tracing.stop()
"""


@pytest.mark.parametrize(
    ("variables", "traced"),
    [
        ({}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_a_process_is_traced_if_an_endpoint_is_set_and_tracing_is_not_disabled(
    variables: dict[str, str], traced: bool
) -> None:
    with sink() as collector:
        named = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.host}", **variables}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=ROOT, env={**os.environ, **named}, check=True, capture_output=True
        )
    assert b"Traceback" not in done.stderr
    messages = [ExportTraceServiceRequest.FromString(body) for _, body in collector.requests]
    names = [s.name for m in messages for r in m.resource_spans for scope in r.scope_spans for s in scope.spans]
    # Health checks are not traced.
    assert names == (["GET /openapi.json"] if traced else [])
    for resource in [r.resource for m in messages for r in m.resource_spans]:
        attributes = {a.key: a.value.string_value for a in resource.attributes}
        assert attributes["deployment.environment.name"] == "test"
