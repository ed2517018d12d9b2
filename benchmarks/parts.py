"""What a part of the benchmarks declares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.context import Context
from benchmarks.results import Result
from benchmarks.stats import ratios, summary


@dataclass(frozen=True)
class Metric:
    """One figure: its column, and whether the table shows its ratio to the baseline."""

    name: str
    title: str
    digits: int = 1
    ratio: bool = False


@dataclass(frozen=True)
class Part:
    """One benchmark that runs alone."""

    name: str
    title: str
    what: str
    """What is measured and how, for docs/benchmarks.md."""
    metrics: tuple[Metric, ...]
    baseline: str
    """The system that the ratios refer to."""
    run: Callable[[Context], Result]
    bound: float = math.inf
    """The highest ratio of its first metric with which `make bench` succeeds."""
    rows: str = "system"
    """What the rows of its table are."""
    plots: Callable[[Result], dict[str, str]] = field(default=lambda _result: {})
    """Return plots by name, as SVG."""

    def beyond_bound(self, result: Result) -> list[str]:
        """Return a sentence for each case and system whose median ratio is above the bound."""
        name = self.metrics[0].name
        found = []
        for case in result.cases():
            base = result.find(case, self.baseline, name)
            for system in result.systems([case]):
                figures = result.find(case, system, name)
                if base and figures:
                    ratio = summary(ratios(figures.values, base.values)).median
                    if ratio > self.bound:
                        found.append(f"{system} {case}: ratio {ratio:.2f} is above {self.bound}")
        return found
