"""Run the production checklist of docs/deployment.md: `python -m app.audit [settings] [files] [services]`.

Prints `ok`, `problem` or `skipped` for each check and exits with 1 if there is a problem. It changes nothing.
"""

import argparse
import asyncio
import contextlib
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.core.audit import Finding

PARTS = ("settings", "files", "services")


async def collect(parts: Sequence[str]) -> "list[Finding]":
    """Return the findings of these parts: the core's first, then each feature's."""
    from app.core import audit_points  # noqa: PLC0415 - reads the settings
    from app.core.features import load_features  # noqa: PLC0415

    points = [point for feature in load_features() for point in feature.audit]
    found: list[Finding] = []
    for part in PARTS:
        if part not in parts:
            continue
        match part:
            case "settings":
                found += audit_points.settings_findings()
            case "files":
                found += audit_points.file_findings()
            case "services":
                found += [finding async for finding in audit_points.database_findings()]
        for point in points:
            if point.part == part:
                found += [finding async for finding in point.check()]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.audit", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="settings, files or services; default: all")
    parts = parser.parse_args(arguments).parts or PARTS
    if not set(parts) <= set(PARTS):
        parser.error(f"PART must be one of {', '.join(PARTS)}")
    try:
        # Invalid settings make the import exit; the audit reports them as problems.
        with contextlib.redirect_stderr(io.StringIO()) as refused:
            import app.core.config  # noqa: F401, PLC0415
    except SystemExit:
        print(*(f"problem  settings: {line}" for line in refused.getvalue().splitlines()), sep="\n")
        return 1
    found = asyncio.run(collect(parts))
    for finding in found:
        print(finding)
    return 1 if any(finding.state == "problem" for finding in found) else 0


if __name__ == "__main__":
    sys.exit(main())
