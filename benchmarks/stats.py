"""Medians, spread, percentiles and ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """The median of several runs, and the lowest and highest of them."""

    median: float
    low: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    """Return the summary of at least one value."""
    return Summary(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return each run's ratio to the baseline in the same run: a machine that is busy for a while slows both."""
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} runs cannot be compared with {len(baseline)} of the baseline")
    return [value / base for value, base in zip(values, baseline, strict=True)]


def rate(times: Sequence[float], warm_up: float) -> float:
    """Return events per second, without those within `warm_up` seconds of the first one."""
    start = min(times) + warm_up
    counted = [one for one in times if one >= start]
    if len(counted) < 2 or max(counted) == min(counted):
        raise ValueError(f"{len(counted)} events after the warm-up are too few for a rate")
    return (len(counted) - 1) / (max(counted) - min(counted))
