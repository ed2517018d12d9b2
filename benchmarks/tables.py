"""Tables in Markdown: ratios first, then medians with the lowest and highest run."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.parts import Metric
from benchmarks.results import Result
from benchmarks.stats import ratios, summary

_ABSENT = ""


def table(result: Result, metrics: Sequence[Metric], baseline: str, rows: str = "system") -> str:
    """Return the table of a result: a row for each case and system, with ratios to `baseline` in the same case."""
    shown = result.cases()
    with_case = len(shown) > 1 or shown != [""]
    compared = [one for one in metrics if one.ratio]
    head = [*(["case"] if with_case else []), rows, *(f"{one.title}: ratio" for one in compared)]
    head += [one.title for one in metrics]
    body = [
        [*([case] if with_case else []), system, *_ratios(result, case, system, compared, baseline)]
        + [_median(result, case, system, one) for one in metrics]
        for case in shown
        for system in result.systems([case])
    ]
    lines = [head, ["---"] * (len(head) - len(compared) - len(metrics)) + ["---:"] * (len(compared) + len(metrics))]
    return "".join(f"| {' | '.join(row)} |\n" for row in [*lines, *body])


def number(value: float, digits: int) -> str:
    """Return a number with `digits` decimals, fewer for large ones, and with commas between thousands."""
    return f"{value:,.{digits if abs(value) < 100 else 0}f}"


def _ratios(result: Result, case: str, system: str, metrics: Sequence[Metric], baseline: str) -> list[str]:
    cells = []
    for metric in metrics:
        figures, base = (result.find(case, one, metric.name) for one in (system, baseline))
        if figures is None or base is None or len(figures.values) != len(base.values):
            cells.append(_ABSENT)
            continue
        found = summary(ratios(figures.values, base.values))
        cells.append("1" if system == baseline else f"**{found.median:.2f}** ({found.low:.2f}-{found.high:.2f})")
    return cells


def _median(result: Result, case: str, system: str, metric: Metric) -> str:
    figures = result.find(case, system, metric.name)
    if figures is None:
        return _ABSENT
    found = summary(figures.values)
    median, low, high = (number(one, metric.digits) for one in (found.median, found.low, found.high))
    return median if low == high else f"{median} ({low}-{high})"
