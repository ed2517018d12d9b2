"""Faults against the compose services of a generated project: `make chaos`."""
