"""Processing a CSV file of any size into another one, in a way that a killed worker's successor goes on with.

The output is written in parts, one for each batch of rows, and a checkpoint after each: `work/csv/<job>/` in the storage. Batches
begin where the checkpoint says, so a part that was broken off is written again with the same content; in the end the parts
become one file.
"""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import PreconditionError

from app.features.csv.formulas import escape_formula
from app.features.csv.reader import CsvReader, InvalidCsv, Position, Row
from app.features.csv.rows import output_columns, process_row
from app.features.storage.service import checked, store

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

BATCH = 8 * 1024 * 1024
"""Bytes of the input, or characters of the output, that become one part."""

MAX_COLUMNS = 1000
_WORK = "work/csv"
_CHUNK = 4 * 1024 * 1024
# A file of its own: one that is handed out twice goes on writing checkpoints.
_RESULT = "result.json"
# How long what jobs leave behind is kept: the result of a finished one, the parts of one that was never taken up again.
_KEPT = timedelta(days=7)

Progress = Callable[[dict[str, Any]], None]


@dataclass
class Checkpoint:
    """Where a job is."""

    source: list[Any]
    """Size, moment and version of the file: of another one the checkpoint says nothing."""
    columns: list[str] = field(default_factory=list)
    offset: int = 0
    line: int = 0
    parts: int = 0
    processed: int = 0
    rejected: int = 0


def process_csv(owner: str, name: str, job: str, progress: Progress) -> dict[str, Any]:
    """Process the owner's file `name` and return a summary; called again with the same `job`, go on.

    Each row goes through `process_row` into `<name>_processed.csv`. What is no row, or is refused, stands with line number and
    reason in `<name>_rejected.csv`. Both replace what has these names.

    Args:
        owner: whose file it is.
        name: the file.
        job: the same for all attempts.
        progress: called after each batch with `percent`, `processed` and `rejected`.

    Raises:
        InvalidCsv: there is no such file, its first line names no columns, or it was replaced meanwhile.
        InvalidFileName: a name that cannot be a file's, or is too long for those of the results to be made from it.
    """
    source, folder = checked("files", owner, name), f"{_WORK}/{checked(job)}"
    outputs = [checked("files", owner, output) for output in output_names(name)]
    _forget_old_jobs()
    try:
        meta = obstore.head(store(), source)
    except FileNotFoundError as error:
        raise InvalidCsv(f"there is no file {name}") from error
    version = [meta["size"], str(meta["last_modified"]), meta["e_tag"]]
    result = _result(folder, version)
    if result is not None:
        return result
    try:
        state = _load(folder, version)
        _write_parts(source, folder, state, meta, progress)
        result = _finish(outputs, folder, state)
    except Exception:
        # Handed out twice, as happens when Redis is lost for a while: whoever ends first deletes the parts of both.
        result = _result(folder, version)
        # An end for good; one that is killed gets no further, and its parts stay.
        _delete(folder, but=_RESULT if result else None)
        if result is None:
            raise
        return result
    obstore.put(store(), f"{folder}/{_RESULT}", json.dumps([version, result]).encode())
    _delete(folder, but=_RESULT)
    return result


def output_names(name: str) -> tuple[str, str]:
    """Return the names of the files that the rows of `name` and those put aside go to."""
    path = PurePosixPath(name)
    return f"{path.stem}_processed{path.suffix}", f"{path.stem}_rejected{path.suffix}"


def _write_parts(source: str, folder: str, state: Checkpoint, meta: "ObjectMeta", progress: Progress) -> None:
    rows = CsvReader(_chunks(source, state.offset, meta), Position(state.offset, state.line)).rows()
    if not state.columns:
        state.columns = _header(next(rows, None))
    batch = _Batch(state.columns)
    for row in rows:
        batch.add(row)
        # Reasons make rows longer, and so may `process_row`: what is written is in memory until the part is.
        if max(row.end.offset - state.offset, batch.size) >= BATCH:
            _close(batch, folder, state, row.end)
            progress(_progress(state, meta["size"]))
            batch = _Batch(state.columns)
    _close(batch, folder, state, Position(meta["size"], state.line))


class _Batch:
    """The rows of a part, and those put aside."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self.output, self.aside = io.StringIO(), io.StringIO()
        self._writer = csv.DictWriter(self.output, output_columns(columns))
        self._aside = csv.writer(self.aside)
        self.processed = self.rejected = 0

    @property
    def size(self) -> int:
        return self.output.tell() + self.aside.tell()

    def add(self, row: Row) -> None:
        problem = row.problem
        if problem is None and len(row.values) != len(self._columns):
            problem = f"{len(row.values)} columns instead of {len(self._columns)}"
        if problem is None:
            try:
                processed = process_row(dict(zip(self._columns, row.values, strict=True)))
            except ValueError as error:
                problem = str(error)
        if problem is None:
            self._writer.writerow({column: escape_formula(value) for column, value in processed.items()})
            self.processed += 1
        else:
            self._aside.writerow([row.line, escape_formula(problem[:500]), escape_formula(",".join(row.values)[:1000])])
            self.rejected += 1


def _close(batch: _Batch, folder: str, state: Checkpoint, end: Position) -> None:
    obstore.put(store(), _part(folder, "processed", state.parts), batch.output.getvalue().encode(errors="replace"))
    obstore.put(store(), _part(folder, "rejected", state.parts), batch.aside.getvalue().encode(errors="replace"))
    state.parts += 1
    state.processed += batch.processed
    state.rejected += batch.rejected
    state.offset, state.line = end.offset, end.line
    _save(folder, state)


def _finish(outputs: list[str], folder: str, state: Checkpoint) -> dict[str, Any]:
    processed, rejected = outputs
    asyncio.run(_join(processed, output_columns(state.columns), folder, "processed", state.parts))
    if state.rejected:
        asyncio.run(_join(rejected, ["line", "reason", "row"], folder, "rejected", state.parts))
    else:
        _delete_file(rejected)
    return {
        "total_rows": state.processed + state.rejected,
        "processed": state.processed,
        "rejected": state.rejected,
        "filename": PurePosixPath(processed).name,
        "rejected_filename": PurePosixPath(rejected).name if state.rejected else None,
    }


async def _join(target: str, header: list[str], folder: str, kind: str, parts: int) -> None:
    async def content() -> AsyncIterator[bytes]:
        first = io.StringIO()
        csv.writer(first).writerow(map(escape_formula, header))
        yield first.getvalue().encode(errors="replace")
        for number in range(parts):
            part = await obstore.get_async(store(), _part(folder, kind, number))
            if part.meta["size"]:
                yield bytes(await part.bytes_async())

    # `put` could not take a generator that reads with `get`.
    await obstore.put_async(store(), target, content(), max_concurrency=2)


def _header(row: Row | None) -> list[str]:
    if row is None:
        raise InvalidCsv("the file is empty")
    columns = [value.strip() for value in row.values]
    if row.problem:
        raise InvalidCsv(f"the first line: {row.problem}")
    if not all(columns) or len(set(columns)) < len(columns) or len(columns) > MAX_COLUMNS:
        raise InvalidCsv(f"the first line must name 1 to {MAX_COLUMNS} columns, each with a name of its own")
    return columns


def _chunks(path: str, offset: int, meta: "ObjectMeta") -> Iterator[bytes]:
    # Requests of their own: one for the whole file would run out of time where rows take long.
    for start in range(offset, meta["size"], _CHUNK):
        wanted: GetOptions = {"range": (start, min(start + _CHUNK, meta["size"]))}
        if meta["e_tag"]:
            wanted["if_match"] = meta["e_tag"]
        try:
            yield bytes(obstore.get(store(), path, options=wanted).bytes())
        except (FileNotFoundError, PreconditionError) as error:
            raise InvalidCsv("the file was replaced or deleted while it was read") from error


def _progress(state: Checkpoint, size: int) -> dict[str, Any]:
    percent = 100 * state.offset // size
    return {"percent": percent, "processed": state.processed, "rejected": state.rejected}


def _part(folder: str, kind: str, number: int) -> str:
    return f"{folder}/{kind}-{number:08}.csv"


def _load(folder: str, source: list[Any]) -> Checkpoint:
    try:
        found = Checkpoint(**json.loads(bytes(obstore.get(store(), f"{folder}/checkpoint.json").bytes())))
    except FileNotFoundError:
        return Checkpoint(source)
    return found if found.source == source else Checkpoint(source)


def _result(folder: str, source: list[Any]) -> dict[str, Any] | None:
    try:
        found, result = json.loads(bytes(obstore.get(store(), f"{folder}/{_RESULT}").bytes()))
    except FileNotFoundError:
        return None
    return dict(result) if found == source else None


def _save(folder: str, state: Checkpoint) -> None:
    obstore.put(store(), f"{folder}/checkpoint.json", json.dumps(asdict(state)).encode())


def _delete(folder: str, but: str | None = None) -> None:
    for chunk in obstore.list(store(), folder):
        for meta in chunk:
            if meta["path"] != f"{folder}/{but}":
                _delete_file(meta["path"])


def _delete_file(path: str) -> None:
    try:
        obstore.delete(store(), path)
    except FileNotFoundError:
        return


def _forget_old_jobs() -> None:
    limit = datetime.now(UTC) - _KEPT
    for chunk in obstore.list(store(), _WORK):
        for meta in chunk:
            if meta["last_modified"] < limit:
                _delete_file(meta["path"])
