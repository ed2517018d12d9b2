"""OpenTelemetry traces of tasks."""
