"""Traces, sent by OTLP over HTTP to where OpenTelemetry's own OTEL_* variables say; nowhere while they name no endpoint."""

import os
import threading

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from app.core.config import defaults
from app.core.config.application import app_settings

# One span a request. Probes come every few seconds and tell nothing.
TELEMETRY: TelemetryConfig = {
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "exclude": lambda scope: scope.get("path") in {"/health", "/ready"},
}

_lock = threading.Lock()
_provider: TracerProvider | None = None


def start() -> None:
    """Trace this process from now on, if an endpoint is named; again it does nothing."""
    global _provider
    with _lock:
        if _provider is None and _is_wanted():
            _provider = TracerProvider(resource=_resource())
            _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            trace.set_tracer_provider(_provider)


def stop() -> None:
    """Send what is left; gives up after the time that OTEL_EXPORTER_OTLP_TIMEOUT allows."""
    if _provider is not None:
        _provider.shutdown()


def _is_wanted() -> bool:
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    exporter = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return bool(endpoint) and exporter == "otlp" and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def _resource() -> Resource:
    own = {
        "service.name": defaults.SLUG,
        "service.version": app_settings.version,
        "deployment.environment.name": app_settings.environment,
    }
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
    return Resource.create(dict(Resource(own).merge(OTELResourceDetector().detect()).attributes))
