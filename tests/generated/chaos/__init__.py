"""Faults against the workers and services of a generated project: `make chaos`."""
