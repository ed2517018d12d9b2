"""Reading CSV of any size: one row in memory at a time, with where it stands, and a reason for what is no row."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_LINE = 1024 * 1024
"""Bytes of a line. A field, which may span lines, has at most `csv.field_size_limit()` characters."""
MAX_ROW = 4 * MAX_LINE
"""Bytes of a row with all of its lines: fields that each hold a line break would make one of a whole file."""


class InvalidCsv(Exception):
    """The file as a whole cannot be processed; the message says why."""


@dataclass(frozen=True)
class Position:
    """How far a file has been read."""

    offset: int = 0
    """Bytes."""
    line: int = 0
    """Lines, as an editor counts them."""


@dataclass(frozen=True)
class Row:
    """A row, or what stands in the place of one and why it is none."""

    line: int
    """The number of its first line."""
    values: list[str]
    problem: str | None
    end: Position


class CsvReader:
    """Reads rows from the bytes of a file, in UTF-8, that begin at `start`."""

    def __init__(self, chunks: Iterable[bytes], start: Position) -> None:
        self._lines = _split(chunks)
        self._offset = start.offset
        self._line = start.line
        self._row_size = 0
        self._problem: str | None = None

    def rows(self) -> Iterator[Row]:
        """Give the rows. Empty lines are skipped.

        A quote that is never closed takes what follows with it up to the limit of a field; then reading goes on.
        """
        # Not a generator: it would be over once it has raised.
        reader = csv.reader(iter(self._next_line, None), strict=True)
        while True:
            first = self._line + 1
            self._row_size = 0
            self._problem = None
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                values = []
                self._problem = self._problem or str(error).replace("unexpected end of data", "a quote is never closed")
            if values or self._problem:
                yield Row(first, values, self._problem, Position(self._offset, self._line))

    def _next_line(self) -> str | None:
        found = next(self._lines, None)
        if found is None:
            return None
        line, size = found
        text = ""
        if line is None:
            self._problem = f"the line is longer than {MAX_LINE} bytes"
        else:
            self._row_size += size
            try:
                # Spreadsheets begin a file with a mark of the encoding.
                text = line.decode("utf-8-sig" if self._offset == 0 else "utf-8")
            except UnicodeDecodeError:
                self._problem = "it is not UTF-8"
                text = line.decode(errors="replace")
        self._offset += size
        self._line += 1
        if self._row_size > MAX_ROW:
            raise csv.Error(f"the row is longer than {MAX_ROW} bytes")
        return text


def _split(chunks: Iterable[bytes]) -> Iterator[tuple[bytes | None, int]]:
    """Give lines with their ends, None for one longer than MAX_LINE, and how many bytes each has."""
    rest = b""
    dropped = 0
    for chunk in chunks:
        lines = io.BytesIO(rest + chunk)
        rest = b""
        for line in lines:
            if line.endswith(b"\n"):
                size = dropped + len(line)
                yield (None if size > MAX_LINE else line), size
                dropped = 0
            elif dropped + len(line) > MAX_LINE:
                dropped += len(line)
            else:
                rest = line
    if rest or dropped:
        yield (None if dropped else rest), dropped + len(rest)
