"""Plots as SVG that is readable on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.stats import Summary

_WIDTH = 760
_COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#6b7280")
_GRID = "#d1d5db"
_STYLE = "<style>text{font:13px system-ui,sans-serif;fill:#6b7280}.title{font-weight:600;font-size:15px}</style>"


@dataclass(frozen=True)
class Bar:
    """One row of a bar plot."""

    label: str
    value: Summary
    highlighted: bool = False


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Return horizontal bars with the spread of the runs, and a line at 1."""
    left, right, top, step = 320, 70, 44, 28
    height = top + step * len(rows) + 12
    most = max([1.0, *(row.value.high for row in rows)])

    def x(value: float) -> float:
        return round(left + (_WIDTH - left - right) * value / most, 1)

    parts = [_text(16, 24, title, "title")]
    for index, row in enumerate(rows):
        y = top + step * index
        middle = y + step / 2 - 3
        colour = _COLOURS[0] if row.highlighted else _COLOURS[5]
        parts += [
            _text(left - 10, middle + 5, row.label, anchor="end"),
            f'<rect x="{left}" y="{y}" width="{round(x(row.value.median) - left, 1)}" height="{step - 7}" rx="2" fill="{colour}"/>',
            _line((x(row.value.low), middle), (x(row.value.high), middle), "#111827"),
            _text(x(row.value.high) + 8, middle + 5, f"{row.value.median:.2f}"),
        ]
    parts.append(_line((x(1), top - 6), (x(1), height - 10), _GRID))
    return _document(height, parts)


def lines(title: str, x_title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return curves on two logarithmic axes; no value may be zero."""
    left, right, top, bottom, height = 80, 30, 64, 56, 360
    xs = [x for curve in curves.values() for x, _ in curve]
    ys = [y for curve in curves.values() for _, y in curve]
    x_axis, y_axis = _Axis(min(xs), max(xs)), _Axis(min(ys), max(ys))

    def x(value: float) -> float:
        return round(left + (_WIDTH - left - right) * x_axis.share(value), 1)

    def y(value: float) -> float:
        return round(height - bottom - (height - top - bottom) * y_axis.share(value), 1)

    parts = [_text(16, 24, title, "title"), _text((left + _WIDTH - right) / 2, height - 12, x_title, anchor="middle")]
    for tick in y_axis.ticks:
        parts.append(_line((left, y(tick)), (_WIDTH - right, y(tick)), _GRID))
        parts.append(_text(left - 8, y(tick) + 4, _short(tick), anchor="end"))
    for value in sorted(set(xs)):
        parts.append(_text(x(value), height - bottom + 20, _short(value), anchor="middle"))
    for index, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        points = " ".join(f"{x(one)},{y(other)}" for one, other in sorted(curve))
        parts.append(f'<polyline fill="none" stroke-width="2" stroke="{colour}" points="{points}"/>')
        parts += [f'<circle cx="{x(one)}" cy="{y(other)}" r="3" fill="{colour}"/>' for one, other in curve]
        place = left + 200 * index
        parts.append(f'<rect x="{place}" y="36" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(_text(place + 18, 47, name))
    return _document(height, parts)


class _Axis:
    """A logarithmic axis from the power of ten below to the one above."""

    def __init__(self, low: float, high: float) -> None:
        if low <= 0:
            raise ValueError(f"{low} has no place on a logarithmic axis")
        self.first, self.last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        if self.first == self.last:
            self.last += 1
        self.ticks = [10.0**power for power in range(self.first, self.last + 1)]

    def share(self, value: float) -> float:
        return (math.log10(value) - self.first) / (self.last - self.first)


def _short(value: float) -> str:
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"


def _line(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    return f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _document(height: float, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', _STYLE, *parts, "</svg>"]) + "\n"
