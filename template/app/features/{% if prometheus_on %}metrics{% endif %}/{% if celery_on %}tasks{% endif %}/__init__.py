"""Metrics of tasks and queues."""
