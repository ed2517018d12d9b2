"""Draw the pictures of README.md as SVG: two diagrams, and what a terminal showed. `make pictures` writes them from real runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_BOX = {"yours": ("#eff6ff", "#2563eb"), "forge": ("#f0fdf4", "#059669"), "server": ("#fff7ed", "#d97706")}
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#111827}.title{font-weight:600;font-size:14px}"
    ".note{fill:#4b5563;font-size:12px}.path{fill:none;stroke:#6b7280;stroke-width:1.5;marker-end:url(#arrow)}"
)
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>'
)

_LINE_HEIGHT = 18
_CHARACTER_WIDTH = 7.83
_MAX_COLUMNS = 124
_TERMINAL_STYLE = (
    "text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#e5e7eb;white-space:pre}"
    ".command{fill:#86efac}.strong{fill:#fde68a}"
)
_PLAYED = (
    "@media(prefers-reduced-motion:no-preference){.line{animation:appear 1ms linear backwards}}"
    "@keyframes appear{from{opacity:0}to{opacity:1}}"
)


@dataclass(frozen=True)
class Line:
    """A line on a terminal.

    Attributes:
        text: without control characters.
        kind: "command" for what was typed, "strong" for what a reader should see first, or nothing.
        at: seconds after the start at which it appeared; None in a picture that does not move.
    """

    text: str
    kind: str = ""
    at: float | None = None


def terminal(title: str, lines: Sequence[Line], *, speed: float = 1.0) -> str:
    """Return a terminal with `lines`, played `speed` times as fast as they appeared.

    Longer lines than 124 characters continue on the next, indented. A reader who prefers no motion sees all of it at once.
    """
    rows = [row for line in lines for row in _wrapped(line)]
    width = round(32 + _CHARACTER_WIDTH * max(len(row.text) for row in rows))
    height = 52 + _LINE_HEIGHT * len(rows)
    parts = [
        f'<rect width="{width}" height="{height}" rx="8" fill="#111827"/>',
        *(f'<circle cx="{20 + 18 * index}" cy="18" r="5" fill="#4b5563"/>' for index in range(3)),
    ]
    for index, row in enumerate(rows):
        moving = "" if row.at is None else f' style="animation-delay:{row.at / speed:.2f}s"'
        name = f"line {row.kind}".strip()
        parts.append(f'<text class="{name}" x="16" y="{48 + _LINE_HEIGHT * index}"{moving}>{escape(row.text)}</text>')
    played = _PLAYED if any(row.at is not None for row in rows) else ""
    return _document(title, width, height, _TERMINAL_STYLE + played, parts)


def _wrapped(line: Line) -> list[Line]:
    indent = " " * (len(line.text) - len(line.text.lstrip()) + 2)
    rows: list[str] = []
    rest = line.text
    while len(rest) > _MAX_COLUMNS:
        cut = rest.rfind(" ", len(indent) + 1, _MAX_COLUMNS)
        cut = _MAX_COLUMNS if cut < 0 else cut
        rows.append(rest[:cut])
        rest = indent + rest[cut:].lstrip()
    return [Line(row, line.kind, line.at) for row in [*rows, rest]]


def parts_of_a_project() -> str:
    """Return the processes of a generated project and what goes between them."""
    boxes = [
        _box(16, 110, 124, 60, "Client", ["requests, events", "of its tasks (SSE)"], "yours"),
        _box(
            190,
            86,
            170,
            108,
            "API",
            ["FastAPI, your routes", "/tasks, /tasks/ui, /ready", "503 within 3 s when", "Redis is down"],
            "forge",
        ),
        _box(438, 40, 190, 62, "Redis, db 1: broker", ["queues high, default, long", "dead letters"], "server"),
        _box(438, 122, 190, 46, "Redis, db 2: results", ["states, records of tasks"], "server"),
        _box(438, 188, 190, 30, "Redis, db 0: cache", [], "server"),
        _box(706, 26, 178, 46, "Beat", ["queues what is scheduled"], "forge"),
        _box(
            706,
            100,
            178,
            84,
            "Workers",
            ["app/tasks/*.py, def and", "async def; acknowledge", "after the task has ended"],
            "forge",
        ),
        _box(438, 262, 190, 62, "PostgreSQL", ["your tables, accounts,", "tasks to queue (outbox)"], "server"),
        _box(706, 262, 178, 62, "Watch it with", ["Flower, Prometheus,", "Sentry, OpenTelemetry"], "server"),
    ]
    paths = [
        _path((140, 140), (190, 140)),
        _path((360, 110), (438, 78), label="queue", at=(380, 82)),
        _path((438, 146), (360, 146), label="status", at=(382, 140)),
        _path((360, 176), (438, 202)),
        _path((706, 52), (628, 56)),
        _path((628, 86), (706, 118), label="take", at=(654, 92)),
        _path((706, 146), (628, 146), label="store", at=(652, 140)),
        _path((275, 194), (438, 284), label="commit", at=(318, 252)),
        _path((740, 184), (740, 232), (600, 232), (600, 262)),
    ]
    return _document("The parts of a generated project", 920, 340, _STYLE, [_ARROW, _card(920, 340), *paths, *boxes])


def an_update() -> str:
    """Return what an update merges, and how it ends."""
    boxes = [
        _box(16, 96, 200, 62, "The release you have", ["rendered with your", "answers"], "forge"),
        _box(300, 22, 220, 62, "Your project", ["your commits on top", "of it"], "yours"),
        _box(300, 170, 220, 62, "The new release", ["rendered with the same", "answers"], "forge"),
        _box(600, 96, 140, 62, "git merge", ["three versions of", "each file"], "server"),
        _box(800, 22, 204, 62, "Merged", ["your line and the release's,", "in moved files too"], "yours"),
        _box(800, 96, 204, 62, "Conflict", ["both changed the same line:", "markers, and the reason"], "yours"),
        _box(800, 170, 204, 62, "Report, always", ["what changed, what to do;", "tests, if no conflict"], "forge"),
    ]
    paths = [
        _path((216, 110), (300, 60)),
        _path((216, 144), (300, 194)),
        _path((520, 60), (600, 110), label="ours", at=(556, 72)),
        _path((216, 127), (600, 127), label="base", at=(400, 121)),
        _path((520, 194), (600, 144), label="theirs", at=(560, 192)),
        _path((740, 110), (800, 60)),
        _path((740, 127), (800, 127)),
        _path((740, 144), (800, 194)),
    ]
    return _document("An update", 1020, 254, _STYLE, [_ARROW, _card(1020, 254), *paths, *boxes])


def _card(width: int, height: int) -> str:
    return f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="#d1d5db"/>'


def _box(x: int, y: int, width: int, height: int, title: str, notes: Sequence[str], kind: str) -> str:
    fill, stroke = _BOX[kind]
    first = y + (20 if notes else height / 2 + 5)
    return "".join(
        [
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{fill}" stroke="{stroke}"/>',
            f'<text class="title" x="{x + 10}" y="{first:g}">{escape(title)}</text>',
            *(
                f'<text class="note" x="{x + 10}" y="{first + 18 + 17 * index:g}">{escape(note)}</text>'
                for index, note in enumerate(notes)
            ),
        ]
    )


def _path(*corners: tuple[int, int], label: str = "", at: tuple[int, int] = (0, 0)) -> str:
    drawn = f'<path class="path" d="M{"L".join(f"{x} {y}" for x, y in corners)}"/>'
    return drawn + (f'<text class="note" x="{at[0]}" y="{at[1]}">{escape(label)}</text>' if label else "")


def _document(title: str, width: int, height: int, style: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{style}</style>", *parts, "</svg>"]) + "\n"
