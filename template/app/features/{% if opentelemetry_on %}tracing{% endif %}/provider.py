"""Export traces by OTLP over HTTP. OpenTelemetry's OTEL_* variables set the endpoint; without one, tracing is off."""

import os
import threading
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from app.core.config import defaults
from app.core.config.application import app_settings

if TYPE_CHECKING:
    # Workers import this module too.
    from fastapi.telemetry import TelemetryConfig

# One span per request. Health checks run every few seconds and their traces are useless.
TELEMETRY: "TelemetryConfig" = {
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "exclude": lambda scope: scope.get("path") in {"/health", "/ready"},
}

_lock = threading.Lock()
_provider: TracerProvider | None = None


def start() -> None:
    """Start tracing this process if an endpoint is set; later calls do nothing."""
    global _provider
    with _lock:
        if _provider is None and _is_wanted():
            _provider = TracerProvider(resource=_resource())
            _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            trace.set_tracer_provider(_provider)


def stop() -> None:
    """Send the remaining spans, for at most OTEL_EXPORTER_OTLP_TIMEOUT."""
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
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override these.
    return Resource.create(dict(Resource(own).merge(OTELResourceDetector().detect()).attributes))
