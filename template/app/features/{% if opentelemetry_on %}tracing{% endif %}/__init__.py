"""Traces for OpenTelemetry, from a request through its tasks."""
