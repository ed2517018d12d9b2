"""Run benchmarks and write docs/benchmarks.md: `make bench`, or `PYTHONPATH=scripts python -m benchmarks`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    async_database,
    copying,
    first_task,
    generators,
    publishing,
    report,
    results,
    scaling,
    start_up,
    update,
    worker,
)
from benchmarks.context import CACHE, Context, Failed
from benchmarks.parts import Part
from benchmarks.systems import WORKERS
from benchmarks.tables import table
from forge_template import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
PARTS: tuple[Part, ...] = (
    worker.PART,
    async_database.PART,
    publishing.PART,
    start_up.PART,
    copying.PART,
    generators.PART,
    update.PART,
    first_task.PART,
    scaling.PART,
)
SIZES = {
    "waiting": "waiting messages",
    "queues": "queues",
    "consumers": "consumers",
    "size": "bytes of a message",
}


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    parts: tuple[Part, ...]
    """The parts to measure; none to write only the page."""
    quick: bool
    runs: int | None
    systems: frozenset[str]
    sizes: dict[str, tuple[int, ...]]

    @property
    def partial(self) -> bool:
        """Whether the figures are not comparable with those that the repository keeps."""
        return bool(self.quick or self.runs or self.systems or self.sizes)


def asked(given: Sequence[str]) -> Asked:
    """Read the command line; end the program if it is wrong."""
    names = ", ".join(one.name for one in PARTS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure, and write docs/benchmarks.md. With any option but --page, only print the tables.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{names}; default: all")
    parser.add_argument(
        "--quick", action="store_true", help="one short run of few systems: under a minute for most parts"
    )
    parser.add_argument("--runs", type=int, help="how many runs, instead of each part's own number")
    parser.add_argument("--systems", type=_names, default=frozenset(), help="worker: comma-separated names of systems")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from the kept results")
    for name, what in SIZES.items():
        parser.add_argument(f"--{name}", type=_numbers, metavar="N,N", help=f"scaling: numbers of {what}")
    read = parser.parse_args(given)
    for what, wanted, known in (
        ("part", set(read.parts), {one.name for one in PARTS}),
        ("system", read.systems, {one.name for one in WORKERS}),
    ):
        if wanted - known:
            parser.error(f"no such {what}: {', '.join(sorted(wanted - known))}; use {', '.join(sorted(known))}")
    parts = tuple(one for one in PARTS if not read.page and (not read.parts or one.name in read.parts))
    sizes = {name: getattr(read, name) for name in SIZES if getattr(read, name)}
    return Asked(parts, read.quick, read.runs, read.systems, sizes)


def main(given: Sequence[str]) -> int:
    """Measure one part after the other; 1 if one of them failed or is beyond its bound."""
    # As a user's Python does: without it, each process would compile its modules again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    wanted = asked(given)
    # A terminated run ends the processes that it started, as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder, page = (CACHE / "partial",) * 2 if wanted.partial else (RESULTS, PAGE.parent)
    try:
        failed = [part.name for part in wanted.parts if not _measure(part, wanted, folder)]
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    kept = {path.stem: results.read(path) for path in sorted(folder.glob("*.json"))}
    report.write(PARTS, kept, page / PAGE.name)
    print(f"written: {page / PAGE.name}")
    return int(bool(failed))


def _measure(part: Part, wanted: Asked, folder: Path) -> bool:
    print(f"{part.title}:", flush=True)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="forge-bench-") as scratch:
            result = part.run(Context(Path(scratch), wanted.quick, wanted.runs, wanted.systems, wanted.sizes))
    except Failed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return False
    result.write(folder)
    print(f"\n{table(result, part.metrics, part.baseline, part.rows)}\n{time.monotonic() - began:.0f} s\n", flush=True)
    problems = part.beyond_bound(result)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return not problems


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(one) for one in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
