"""What commands share: tables for people, JSON for programs, errors on stderr with an exit code."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
"""The option `--json` of a command that prints something."""

DryRun = Annotated[
    bool | None,
    typer.Option("--dry-run/--no-dry-run", help="With a filter: only show what would be done.  [default: dry-run]"),
]
"""The option of a command that changes what a filter selects: it must be asked to."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"(\d{1,5})([smhd])")


class ExitCode(IntEnum):
    """How a command ended; docs/command-line.md explains the codes."""

    OK = 0
    FAILED = 1
    """A check found a problem, or a task failed."""
    USAGE = 2
    """An argument or a setting is invalid."""
    NOT_FOUND = 3
    UNAVAILABLE = 4
    """Redis or the database does not answer."""
    CONFLICT = 5
    """What was asked for is not possible in the present state."""


def fail(message: str, code: ExitCode) -> NoReturn:
    """Print an error and exit."""
    print(f"Error: {printable(message)}", file=sys.stderr)
    raise typer.Exit(code)


def run(main: Coroutine[Any, Any, T], *outages: type[Exception]) -> T:
    """Run a coroutine of the application and return its result; exit with UNAVAILABLE if it raises one of `outages`.

    Its log lines go to stderr, from WARNING up.
    """
    from app.core.logging import configure_logging

    configure_logging()
    root = logging.getLogger()
    root.setLevel(max(root.level, logging.WARNING))
    try:
        return asyncio.run(main)
    except outages as error:
        # The first line: a database's error continues with the statement.
        reason = str(error.__cause__ or error).strip() or type(error.__cause__ or error).__name__
        fail(reason.partition("\n")[0], ExitCode.UNAVAILABLE)


def print_json(value: object) -> None:
    """Print a value as JSON; times are in ISO 8601."""
    print(json.dumps(value, indent=2, default=_json))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table. What is not text is shown as text; None is empty."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(shown, row))
    console().print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print a line for each name and value; without those that are None."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value is not None:
            table.add_row(name, shown(value))
    console().print(table)


def console() -> "Console":
    """Return rich's console on stdout. It takes no text for markup, and cuts nothing if stdout is no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 10_000
    return Console(width=width, markup=False, highlight=False, emoji=False)


def shown(value: object) -> str:
    """Return a value as text for people: times in the local time zone, and no control characters."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"
    return printable(value if isinstance(value, str) else json.dumps(value, default=_json))


def printable(text: str) -> str:
    """Return text that a terminal only shows: escape sequences in what clients sent could change its output."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def parse_time(text: str | None) -> datetime | None:
    """Return the time that an option names: `15m` and `2h` ago, or a time in ISO 8601, in the local time zone if it names none.

    Raises:
        typer.BadParameter: it is neither.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(f"{text!r} is not a time; use for example 15m, 2h, 7d or 2026-11-29T18:00.") from None


def _json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
