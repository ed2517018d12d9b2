"""Run the production checklist of docs/deployment.md: `python -m app.audit [settings] [files] [services]`.

Prints `ok`, `problem` or `skipped` for each check and exits with 1 if there is a problem. It changes nothing.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import io
import sys
from collections.abc import Mapping, Sequence
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


def findings(parts: Sequence[str]) -> list[dict[str, str]]:
    """Return what each check found: `state`, `what` and `text`. Invalid settings are problems too."""
    try:
        # They make the import exit.
        with contextlib.redirect_stderr(io.StringIO()) as refused:
            import app.core.config  # noqa: F401, PLC0415
    except SystemExit:
        lines = refused.getvalue().splitlines()
        return [{"state": "problem", "what": "settings", "text": line} for line in lines]
    return [dataclasses.asdict(finding) for finding in asyncio.run(collect(parts))]


def line(finding: Mapping[str, str]) -> str:
    """Return a finding as one line."""
    return f"{finding['state']:<8} {finding['what']}: {finding['text']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.audit", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="settings, files or services; default: all")
    parts = parser.parse_args(arguments).parts or PARTS
    if not set(parts) <= set(PARTS):
        parser.error(f"PART must be one of {', '.join(PARTS)}")
    found = findings(parts)
    for finding in found:
        print(line(finding))
    return 1 if any(finding["state"] == "problem" for finding in found) else 0


if __name__ == "__main__":
    sys.exit(main())
