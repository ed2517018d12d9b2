"""Traces of tasks."""
