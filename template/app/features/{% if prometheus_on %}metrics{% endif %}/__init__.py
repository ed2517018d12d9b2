"""Prometheus metrics of requests and tasks."""
