"""Read and write small files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

SECRETS = "secret/.env.*"
"""The settings files, which git ignores."""
HALF_WRITTEN = ".forge-"
"""Part of the name of a file that is being written."""


def write_whole(target: Path, content: bytes, mode: int | None = None) -> None:
    """Replace a file in one step, so that a killed update leaves no half of it. A symbolic link stays one."""
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}{HALF_WRITTEN}{os.getpid()}")
    if mode is None:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def copy_private(source: Path, target: Path) -> None:
    """Copy a file that only its owner may read."""
    write_whole(target, source.read_bytes(), mode=0o600)


def parse_yaml(content: bytes | str) -> Any:
    """Return what YAML holds. The parser in C is ten times as fast, where there is one."""
    return yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are the safe loader)
