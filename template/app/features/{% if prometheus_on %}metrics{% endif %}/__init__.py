"""Metrics for Prometheus, of requests and of tasks."""
