"""The production checklist."""

import os
from typing import Annotated

import typer

from app.cli.console import ExitCode, Json, print_json


def command(
    parts: Annotated[
        list[str] | None, typer.Argument(metavar="PART", help="settings, files or services; default: all")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Go through the production checklist; exits with 1 if there is a problem.

    It checks the settings of production, unless ENVIRONMENT names another environment, and changes nothing.
    """
    os.environ.setdefault("ENVIRONMENT", "production")
    from app import audit

    unknown = sorted(set(parts or ()) - set(audit.PARTS))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not a part; use {', '.join(audit.PARTS)}.")
    found = audit.findings(parts or audit.PARTS)
    if as_json:
        print_json(found)
    else:
        for finding in found:
            print(audit.line(finding))
    if any(finding["state"] == "problem" for finding in found):
        raise typer.Exit(ExitCode.FAILED)
