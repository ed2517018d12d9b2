"""OpenTelemetry traces from a request through its tasks."""
