"""The project's tests: a folder for each feature, `core/`, `worker/`, and `e2e/`, which starts real processes."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The project's root folder."""
