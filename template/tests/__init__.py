"""Tests; `tests/e2e` starts the application's processes."""
