"""Read CSV files of any size, one row in memory at a time, with line numbers and the reason why a row is invalid."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_LINE = 1024 * 1024
"""Maximum bytes of a line. `csv.field_size_limit()` limits the characters of a field, which may span several lines."""
MAX_ROW = 4 * MAX_LINE
"""Maximum bytes of a row with all its lines: fields with line breaks could otherwise turn a whole file into one row."""


class InvalidCsv(Exception):
    """The whole file cannot be processed; the message is the reason."""


@dataclass(frozen=True)
class Position:
    """How far a file has been read."""

    offset: int = 0
    """In bytes."""
    line: int = 0
    """In lines, as an editor counts them."""


@dataclass(frozen=True)
class Row:
    """A row; `problem` is the reason if it is invalid, else None."""

    line: int
    """The number of the row's first line."""
    values: list[str]
    problem: str | None
    end: Position


class CsvReader:
    """Read rows from the UTF-8 bytes of a file, starting at `start`."""

    def __init__(self, chunks: Iterable[bytes], start: Position) -> None:
        self._lines = _split(chunks)
        self._offset = start.offset
        self._line = start.line
        self._row_size = 0
        self._problem: str | None = None

    def rows(self) -> Iterator[Row]:
        """Yield the rows; skip empty lines.

        A quote that is never closed consumes the following text up to the limit of a field; then reading continues.
        """
        # An iterator instead of a generator: a generator ends when it raises an exception.
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
                # Spreadsheets start a file with a byte order mark.
                text = line.decode("utf-8-sig" if self._offset == 0 else "utf-8")
            except UnicodeDecodeError:
                self._problem = "the row is not valid UTF-8"
                text = line.decode(errors="replace")
        self._offset += size
        self._line += 1
        if self._row_size > MAX_ROW:
            raise csv.Error(f"the row is longer than {MAX_ROW} bytes")
        return text


def _split(chunks: Iterable[bytes]) -> Iterator[tuple[bytes | None, int]]:
    """Yield each line with its line ending, or None if it is longer than MAX_LINE, and its size in bytes."""
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
