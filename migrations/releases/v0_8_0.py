"""0.8.0: current with its ecosystem."""

from __future__ import annotations

from engine.release import Release

RELEASE = Release(
    "0.8.0",
    steps=("Run `uv sync`, and commit uv.lock with the update.",),
)
