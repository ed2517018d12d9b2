"""What a run was asked for, and the folders that it may write to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forge_template import ROOT

CACHE = ROOT / ".venv" / "benchmarks"


class Failed(Exception):
    """A part that could not be measured."""


@dataclass(frozen=True)
class Context:
    """A run of one or more parts."""

    scratch: Path
    quick: bool = False
    runs: int | None = None
    systems: frozenset[str] = frozenset()
    """The systems to measure besides the baseline; empty for all of the part."""
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The sizes of `scaling` to measure instead of its defaults, by dimension."""

    def turns(self, full: int) -> int:
        """Return how many runs to measure: what was asked for, one if quick, or `full`."""
        return self.runs or (1 if self.quick else full)

    def say(self, text: str) -> None:
        """Print one line of progress."""
        print(text, flush=True)
