"""Prometheus metrics of tasks and queues."""
