"""Write docs/benchmarks.md from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.parts import Part
from benchmarks.results import Result
from benchmarks.tables import table

_HEAD = """\
# Benchmarks

This page is written by `make bench`, which takes about half an hour on two cores; do not edit it. The figures of every run
are in `benchmarks/results/`.

    make bench                                       # all parts, then this page
    make bench ARGS="worker scaling"                 # some of the parts
    make bench ARGS="--quick"                        # one short run of each part: prints the tables, changes no page
    make bench ARGS="worker --systems dramatiq,huey" # these systems and the baseline, changes no page
    make bench ARGS="scaling --queues 1,500"         # other sizes, changes no page
    make bench ARGS="--page"                         # measures nothing, writes this page from the kept figures

Run it on a machine that does nothing else. **Ratios count, not absolute numbers**: systems take turns, each ratio compares two
runs of the same turn, and the table shows the median of these ratios with the lowest and the highest. Ratios of rates are
better above 1, ratios of times below 1. Other figures are medians, with the lowest and highest run in parentheses.

The peers are installed at exact versions (`benchmarks/requirements/`) into environments below `.venv/benchmarks`. The project is
rendered from the working tree with the default answers, which is the standard profile. All servers are the ones that generated
projects embed.
"""


def page(parts: Sequence[Part], results: Mapping[str, Result]) -> str:
    """Return the page of all parts, measured or not."""
    sections = [_HEAD]
    for part in parts:
        sections.append(f"## {part.title}\n\n{part.what}\n")
        result = results.get(part.name)
        if result is None:
            sections.append(f'Not measured yet: `make bench ARGS="{part.name}"`.\n')
            continue
        sections.append(table(result, part.metrics, part.baseline, part.rows))
        sections += [f"![{part.title}]({plot_file(name)})\n" for name in part.plots(result)]
        sections.append(_measured(result))
    return "\n".join(sections)


def write(parts: Sequence[Part], results: Mapping[str, Result], path: Path) -> None:
    """Write the page and its plots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if part.name in results:
            for name, plot in part.plots(results[part.name]).items():
                (path.parent / plot_file(name)).write_text(plot, encoding="utf-8")
    path.write_text(page(parts, results), encoding="utf-8")


def plot_file(name: str) -> str:
    """Return the file name of a plot, which stands beside the page."""
    return f"benchmarks-{name}.svg"


def _measured(result: Result) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    machine = result.machine
    text = f"Measured on {result.date}: {machine['system']}, {machine['processor']}, {machine['memory']}; "
    text += f"load average before {machine['load']}"
    return f"{text}. {versions}.\n" if versions else f"{text}.\n"
