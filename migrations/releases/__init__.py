"""What each release asks of older projects: one module per release, `vX_Y_Z.py`, with a `RELEASE` in it."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from engine.release import Release

_MODULE = re.compile(r"v\d+_\d+_\d+")


def all_releases() -> list[Release]:
    """Return the releases, in no particular order."""
    names = [path.stem for path in Path(__file__).parent.glob("v*.py") if _MODULE.fullmatch(path.stem)]
    return [import_module(f"{__name__}.{name}").RELEASE for name in sorted(names)]
