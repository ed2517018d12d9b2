"""The figures of a part, with the machine and the versions that they were measured with, as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil


@dataclass
class Series:
    """The figures of one system in one case, a value per run."""

    case: str
    system: str
    metric: str
    values: list[float] = field(default_factory=list)


@dataclass
class Result:
    """All figures of one part."""

    part: str
    quick: bool
    date: str
    machine: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)

    @classmethod
    def new(cls, part: str, *, quick: bool) -> Result:
        """Return a result without figures, of this machine and day."""
        return cls(part, quick, time.strftime("%Y-%m-%d", time.gmtime()), machine())

    def add(self, case: str, system: str, metric: str, value: float) -> None:
        """Append the figure of one run."""
        known = self.find(case, system, metric)
        if known is None:
            known = Series(case, system, metric)
            self.series.append(known)
        known.values.append(value)

    def find(self, case: str, system: str, metric: str) -> Series | None:
        """Return the series of one metric, or None if it was not measured."""
        wanted = (case, system, metric)
        return next((one for one in self.series if (one.case, one.system, one.metric) == wanted), None)

    def cases(self) -> list[str]:
        """Return the cases in the order in which they were measured."""
        return list(dict.fromkeys(one.case for one in self.series))

    def systems(self, cases: Iterable[str]) -> list[str]:
        """Return the systems that were measured in those cases, in that order."""
        wanted = set(cases)
        return list(dict.fromkeys(one.system for one in self.series if one.case in wanted))

    def write(self, folder: Path) -> Path:
        """Write `<part>.json` and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.part}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path


def read(path: Path) -> Result:
    """Read what `Result.write` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    series = [Series(**one) for one in content.pop("series")]
    return Result(**content, series=series)


def machine() -> dict[str, str]:
    """Describe this machine."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, "
        f"{platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "load": " ".join(f"{one:.1f}" for one in os.getloadavg()),
    }
