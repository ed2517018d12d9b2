"""Tests: one folder per feature, `core/`, `worker/`, and `e2e/` with real processes."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The project's root folder."""
