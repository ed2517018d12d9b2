"""Process a CSV file of any size into another file, and resume after a crash.

The output is written in parts, one per batch of rows, with a checkpoint after each part: `work/csv/<job>/` in the
storage. A batch starts at the checkpoint, so an incomplete part is written again with the same content. At the end the
parts are joined to one file.
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
"""The size of one part: bytes of the input or characters of the output, whichever is reached first."""

MAX_COLUMNS = 1000
_WORK = "work/csv"
_CHUNK = 4 * 1024 * 1024
# Separate from the checkpoint: if the task is delivered twice, the other run still writes checkpoints.
_RESULT = "result.json"
# How long to keep the result of a finished job, and the parts of one that was never resumed.
_KEPT = timedelta(days=7)

Progress = Callable[[dict[str, Any]], None]


@dataclass
class Checkpoint:
    """The progress of a job."""

    source: list[Any]
    """Size, modification time and version of the file. The checkpoint is invalid for any other."""
    columns: list[str] = field(default_factory=list)
    offset: int = 0
    line: int = 0
    parts: int = 0
    processed: int = 0
    rejected: int = 0


def process_csv(owner: str, name: str, job: str, progress: Progress) -> dict[str, Any]:
    """Process the owner's file `name` and return a summary. Another call with the same `job` resumes it.

    Each row goes through `process_row` into `<name>_processed.csv`. Invalid and rejected rows are written to
    `<name>_rejected.csv` with line number and reason. Existing files with these names are replaced.

    Args:
        owner: the owner of the file.
        name: the name of the file.
        job: the id of the job, the same for all attempts.
        progress: called after each batch with `percent`, `processed` and `rejected`.

    Raises:
        InvalidCsv: the file does not exist, its header is invalid, or it was replaced meanwhile.
        InvalidFileName: the name is invalid, or too long for the names of the results.
    """
    source, folder = checked("files", owner, name), f"{_WORK}/{checked(job)}"
    outputs = [checked("files", owner, output) for output in output_names(name)]
    _delete_old_jobs()
    try:
        meta = obstore.head(store(), source)
    except FileNotFoundError as error:
        raise InvalidCsv(f"the file {name} does not exist") from error
    version = [meta["size"], str(meta["last_modified"]), meta["e_tag"]]
    result = _result(folder, version)
    if result is not None:
        return result
    try:
        state = _load(folder, version)
        _write_parts(source, folder, state, meta, progress)
        result = _finish(outputs, folder, state)
    except Exception:
        # If the task is delivered twice, for example after an outage of Redis, the run that ends first deletes all
        # parts.
        result = _result(folder, version)
        # The job has failed. A killed run does not get here, so its parts are kept.
        _delete(folder, keep=_RESULT if result else None)
        if result is None:
            raise
        return result
    obstore.put(store(), f"{folder}/{_RESULT}", json.dumps([version, result]).encode())
    _delete(folder, keep=_RESULT)
    return result


def output_names(name: str) -> tuple[str, str]:
    """Return the names of the files for the processed and the rejected rows of `name`."""
    path = PurePosixPath(name)
    return f"{path.stem}_processed{path.suffix}", f"{path.stem}_rejected{path.suffix}"


def _write_parts(source: str, folder: str, state: Checkpoint, meta: "ObjectMeta", progress: Progress) -> None:
    rows = CsvReader(_chunks(source, state.offset, meta), Position(state.offset, state.line)).rows()
    if not state.columns:
        state.columns = _header(next(rows, None))
    batch = _Batch(state.columns)
    for row in rows:
        batch.add(row)
        # The output is in memory until the part is written, and may be larger than the input.
        if max(row.end.offset - state.offset, batch.size) >= BATCH:
            _close(batch, folder, state, row.end)
            progress(_progress(state, meta["size"]))
            batch = _Batch(state.columns)
    _close(batch, folder, state, Position(meta["size"], state.line))


class _Batch:
    """The processed and rejected rows of a part."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self.output, self.rejected_output = io.StringIO(), io.StringIO()
        self._writer = csv.DictWriter(self.output, output_columns(columns))
        self._rejected_writer = csv.writer(self.rejected_output)
        self.processed = self.rejected = 0

    @property
    def size(self) -> int:
        return self.output.tell() + self.rejected_output.tell()

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
            self._rejected_writer.writerow(
                [row.line, escape_formula(problem[:500]), escape_formula(",".join(row.values)[:1000])]
            )
            self.rejected += 1


def _close(batch: _Batch, folder: str, state: Checkpoint, end: Position) -> None:
    obstore.put(store(), _part(folder, "processed", state.parts), batch.output.getvalue().encode(errors="replace"))
    obstore.put(
        store(), _part(folder, "rejected", state.parts), batch.rejected_output.getvalue().encode(errors="replace")
    )
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

    # The synchronous `put` does not accept a generator that calls `get`.
    await obstore.put_async(store(), target, content(), max_concurrency=2)


def _header(row: Row | None) -> list[str]:
    if row is None:
        raise InvalidCsv("the file is empty")
    columns = [value.strip() for value in row.values]
    if row.problem:
        raise InvalidCsv(f"the header is invalid: {row.problem}")
    if not all(columns) or len(set(columns)) < len(columns) or len(columns) > MAX_COLUMNS:
        raise InvalidCsv(f"the header must have 1 to {MAX_COLUMNS} columns with unique names")
    return columns


def _chunks(path: str, offset: int, meta: "ObjectMeta") -> Iterator[bytes]:
    # One request per chunk: a request for the whole file would time out if the rows take long.
    for start in range(offset, meta["size"], _CHUNK):
        wanted: GetOptions = {"range": (start, min(start + _CHUNK, meta["size"]))}
        if meta["e_tag"]:
            wanted["if_match"] = meta["e_tag"]
        try:
            yield bytes(obstore.get(store(), path, options=wanted).bytes())
        except (FileNotFoundError, PreconditionError) as error:
            raise InvalidCsv("the file was replaced or deleted during processing") from error


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


def _delete(folder: str, keep: str | None = None) -> None:
    for chunk in obstore.list(store(), folder):
        for meta in chunk:
            if meta["path"] != f"{folder}/{keep}":
                _delete_file(meta["path"])


def _delete_file(path: str) -> None:
    try:
        obstore.delete(store(), path)
    except FileNotFoundError:
        return


def _delete_old_jobs() -> None:
    limit = datetime.now(UTC) - _KEPT
    for chunk in obstore.list(store(), _WORK):
        for meta in chunk:
            if meta["last_modified"] < limit:
                _delete_file(meta["path"])
