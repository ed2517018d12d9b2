"""CSV files: reading, processing, and resuming after a crash."""

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import obstore
import pytest

from app.api import owner
from app.features.csv import job as csv_job
from app.features.csv.formulas import escape_formula
from app.features.csv.job import process_csv
from app.features.csv.reader import MAX_LINE, MAX_ROW, CsvReader, InvalidCsv, Position, Row
from app.features.csv.rows import process_row
from app.features.storage.service import store
from app.main import create_app
from tests import ROOT

JOB = "0b7a3c1e-job"

MIXED = "\n".join(
    [
        "\ufeffname,note",
        "ada,one",
        '"eve","two',
        'lines"\r',
        "",
        "bob,three,more",
        'broken"quote,"x"y',
        "\u00e4,\U0001f389",
        f"long,{'x' * MAX_LINE}",
        "zoe,last",
    ]
).encode()


def rows_of(content: bytes, chunk: int = 7, start: Position | None = None) -> list[Row]:
    begin = start or Position()
    chunks = (content[at : at + chunk] for at in range(begin.offset, len(content), chunk))
    return list(CsvReader(chunks, begin).rows())


def test_rows_have_line_numbers_and_problems() -> None:
    rows = rows_of(MIXED, 65_536)
    assert [(row.line, row.values[:2], row.problem) for row in rows] == [
        (1, ["name", "note"], None),
        (2, ["ada", "one"], None),
        (3, ["eve", "two\nlines"], None),
        (6, ["bob", "three"], None),
        (7, [], "',' expected after '\"'"),
        (8, ["\u00e4", "\U0001f389"], None),
        (9, [], f"the line is longer than {MAX_LINE} bytes"),
        (10, ["zoe", "last"], None),
    ]
    assert rows[-1].end == Position(len(MIXED), 10)


@pytest.mark.parametrize("chunk", [1, 2, 3, 50, 1000])
def test_the_size_of_chunks_makes_no_difference(chunk: int) -> None:
    small = MIXED.replace(b"x" * MAX_LINE, b"x")
    assert rows_of(small, chunk) == rows_of(small, 10**6)


def test_reading_can_resume_at_the_end_of_each_row() -> None:
    rows = rows_of(MIXED, 65_536)
    for number, row in enumerate(rows):
        assert rows_of(MIXED, 65_536, row.end) == rows[number + 1 :]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a\n\xff\xfe\nb", "the row is not valid UTF-8"),
        (b'a\n"never closed\nb', "a quote is never closed"),
        (b'a\n"' + b"x\n" * 70_000 + b"b", "field larger than field limit (131072)"),
        (b'a\n"\n' + b'","\n' * (MAX_ROW // 4), f"the row is longer than {MAX_ROW} bytes"),
    ],
)
def test_an_invalid_row_is_reported_and_reading_continues(content: bytes, problem: str) -> None:
    rows = rows_of(content, 1000)
    assert [row.problem for row in rows if row.problem] == [problem]
    assert rows[1].line == 2


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Delete the files after the test."""
    yield
    for chunk in obstore.list(store()):
        obstore.delete(store(), [meta["path"] for meta in chunk])


def put(content: bytes, name: str = "x.csv") -> None:
    obstore.put(store(), f"files/ada/{name}", content)


def get(name: str) -> str:
    return bytes(obstore.get(store(), f"files/ada/{name}").bytes()).decode()


def work() -> set[str]:
    return {meta["path"].removeprefix("work/csv/") for chunk in obstore.list(store(), "work") for meta in chunk}


def run(progress: Any = lambda _: None, job: str = JOB) -> dict[str, Any]:
    return process_csv("ada", "x.csv", job, progress)


def test_invalid_rows_are_written_separately_and_the_result_is_a_summary() -> None:
    """The rows are not part of the task's result."""
    put(MIXED + b"\n , \n")
    assert run() == {
        "total_rows": 8,
        "processed": 4,
        "rejected": 4,
        "filename": "x_processed.csv",
        "rejected_filename": "x_rejected.csv",
    }
    assert get("x_processed.csv") == 'name,note\r\nada,one\r\neve,"two\nlines"\r\n\u00e4,\U0001f389\r\nzoe,last\r\n'
    rejected = list(csv.reader(io.StringIO(get("x_rejected.csv"))))
    assert [row[:2] for row in rejected] == [
        ["line", "reason"],
        ["6", "3 columns instead of 2"],
        ["7", "',' expected after '\"'"],
        ["9", f"the line is longer than {MAX_LINE} bytes"],
        ["11", "the row is empty"],
    ]
    assert rejected[1][2] == "bob,three,more"
    assert work() == {f"{JOB}/result.json"}


def test_a_file_without_invalid_rows_deletes_an_old_rejected_file() -> None:
    put(b"a,b\n1\n")
    assert run()["rejected"] == 1
    put(b"a,b\n1,2\n")
    assert run(job="another")["rejected_filename"] is None
    with pytest.raises(FileNotFoundError):
        get("x_rejected.csv")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"a,a\n1,2", "with unique names"),
        (b"a,\n1,2", "with unique names"),
        (b",".join(b"c%d" % number for number in range(1001)), "1 to 1000 columns"),
        (b"\xff\n", "the header is invalid: the row is not valid UTF-8"),
    ],
)
def test_a_file_with_an_invalid_header_is_rejected(content: bytes, reason: str) -> None:
    put(content)
    with pytest.raises(InvalidCsv, match=reason):
        run()
    assert work() == set()


def test_written_values_are_read_unchanged() -> None:
    values = ["two\r\nlines", "an old\rMac's", 'a "quote"', ";\t,", "'=1+1"]
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL).writerow(values)
    put(b"a,b,c,d,e\r\n" + line.getvalue().encode() + b"a\rb,1\r\n")
    assert (run()["processed"], run()["rejected"]) == (1, 1)
    assert [row.values for row in rows_of(get("x_processed.csv").encode())][1:] == [values]
    assert [row.problem for row in rows_of(get("x_rejected.csv").encode())] == [None, None]


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        *(
            (cell, f"'{cell}")
            for cell in ("=1+1", "+A1", "-A1", "@SUM(A1)", "-", "=", "-5+cmd|x", "+49 30 1", "-\u0665")
        ),
        *(
            (cell, cell)
            for cell in ("-5", "+5", "-1.5", "-1,234.50", "-1e-5", "-.5", "+12%", "5", "a=1", "'=1", "a\tb")
        ),
    ],
)
def test_formulas_are_escaped_and_numbers_are_not(cell: str, written: str) -> None:
    line = io.StringIO()
    csv.writer(line).writerow(["x", cell])
    put(b"a,=b\n" + line.getvalue().encode() + b"=too,many,columns\n")
    run(job=f"job-{abs(hash(cell))}")
    assert list(csv.reader(io.StringIO(get("x_processed.csv"))))[:2] == [["a", "'=b"], ["x", written]]
    assert list(csv.reader(io.StringIO(get("x_rejected.csv"))))[1][2] == "'=too,many,columns"


@pytest.mark.parametrize("cell", ["\t=1", "\r=1", "\t"])
def test_formulas_after_whitespace_are_escaped(cell: str) -> None:
    assert escape_formula(cell) == f"'{cell}"


def test_a_name_too_long_for_the_results_is_rejected_before_processing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_job, "process_row", None)
    name = f"{'x' * 120}.csv"
    put(b"a\n1\n", name)
    with pytest.raises(ValueError, match="is not a valid file name"):
        process_csv("ada", name, JOB, lambda _: None)


def test_the_size_of_a_part_includes_the_reasons_of_rejected_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_job, "BATCH", 2000)
    sizes: list[int] = []
    put_object = obstore.put

    def measured(store: Any, path: str, content: bytes, **options: Any) -> Any:
        sizes.append(len(content))
        return put_object(store, path, content, **options)

    put(b"a,b\n" + b"x\n" * 2000)
    monkeypatch.setattr(obstore, "put", measured)
    assert run()["rejected"] == 2000
    assert max(sizes) < 2100


def test_missing_files_and_path_traversal_are_rejected() -> None:
    with pytest.raises(InvalidCsv, match=r"the file x\.csv does not exist"):
        run()
    for folder, name in (("../files/ada", "x.csv"), ("ada", "../x.csv"), ("ada", "/etc/passwd")):
        with pytest.raises(ValueError, match="is not a valid file name"):
            process_csv(folder, name, JOB, lambda _: None)


def test_a_file_with_only_a_header_has_no_rows() -> None:
    put(b"a,b")
    assert run()["total_rows"] == 0
    assert get("x_processed.csv") == "a,b\r\n"


NUMBERS = b"number,note\n" + b"".join(b'%d,"a\nb"\n' % number if number % 50 else b"x\n" for number in range(1, 2001))


class Killed(BaseException):
    """Simulate a signal: no code after it runs."""


def test_a_killed_job_resumes_at_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_job, "BATCH", 2000)
    put(NUMBERS)
    expected = run(job="undisturbed")
    outputs = [get(name) for name in ("x_processed.csv", "x_rejected.csv")]
    assert expected["processed"] + expected["rejected"] == 2000
    for path in ("files/ada/x_processed.csv", "files/ada/x_rejected.csv", "work/csv/undisturbed/result.json"):
        obstore.delete(store(), path)

    seen_rows: list[str] = []

    def counted(row: dict[str, str]) -> dict[str, str]:
        seen_rows.append(row["number"])
        return process_row(row)

    monkeypatch.setattr(csv_job, "process_row", counted)
    seen: list[int] = []
    put_object = obstore.put

    def killed_in(progress: dict[str, Any]) -> None:
        seen.append(progress["percent"])
        if len(seen) in {1, 3}:
            raise Killed

    def killed_between_part_and_checkpoint(store: Any, path: str, content: Any, **options: Any) -> Any:
        if path.endswith("checkpoint.json") and len(seen) == 4:
            seen.append(seen[-1])
            raise Killed
        return put_object(store, path, content, **options)

    monkeypatch.setattr(obstore, "put", killed_between_part_and_checkpoint)
    for _ in range(3):
        with pytest.raises(Killed):
            run(killed_in)
    assert run(killed_in) == expected
    assert [get(name) for name in ("x_processed.csv", "x_rejected.csv")] == outputs
    assert seen == sorted(seen)
    # Only the batch whose checkpoint was not written is processed again.
    assert len(seen_rows) - len(set(seen_rows)) <= 250
    assert work() == {f"{JOB}/result.json"}


def test_redelivering_a_finished_job_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    put(NUMBERS)
    done = run()
    monkeypatch.setattr(csv_job, "process_row", None)
    assert run() == done


def test_a_job_that_runs_twice_concurrently_succeeds_in_both_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_job, "BATCH", 2000)
    put(NUMBERS)
    expected = run(job="undisturbed")
    output = get("x_processed.csv")
    ends: list[dict[str, Any]] = []

    def overtaken(progress: dict[str, Any]) -> None:
        if progress["percent"] > 50 and not ends:
            ends.append(run())

    ends.append(run(overtaken))
    assert ends == [expected] * 2
    assert get("x_processed.csv") == output
    assert work() == {"undisturbed/result.json", f"{JOB}/result.json"}
    assert run() == expected


def test_a_replaced_file_is_processed_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_job, "BATCH", 2000)

    def kill(_: dict[str, Any]) -> None:
        raise Killed

    put(NUMBERS)
    with pytest.raises(Killed):
        run(kill)
    put(b"a\n1\n")
    assert run()["total_rows"] == 1
    assert get("x_processed.csv") == "a\r\n1\r\n"


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", None])
def test_a_file_that_is_replaced_during_processing_is_rejected(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_job, "BATCH", 2000)
    monkeypatch.setattr(csv_job, "_CHUNK", 2000)

    def change(_: dict[str, Any]) -> None:
        if content is None:
            obstore.delete(store(), "files/ada/x.csv")
        else:
            put(content)

    put(NUMBERS)
    with pytest.raises(InvalidCsv, match="replaced or deleted"):
        run(change)
    assert work() == set()


def test_files_of_old_jobs_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    put(b"a\n1\n")
    obstore.put(store(), "work/csv/old/checkpoint.json", b"{}")
    run()
    assert work() == {"old/checkpoint.json", f"{JOB}/result.json"}
    monkeypatch.setattr(csv_job, "_KEPT", timedelta(0))
    run(job="another")
    assert work() == {"another/result.json"}


MEASURE = """
import json, re, sys, time
from pathlib import Path
import obstore
from app.features.csv.formulas import escape_formula
from app.features.csv.job import process_csv
from app.features.storage.service import store

line = b"1234567,Ada Lovelace,ada@example.com,2026-11-24T12:00:00Z,some text that makes the row longer,42.50\\n"
size = int(sys.argv[1])

def content():
    yield b"id,name,email,at,note,amount\\n"
    block = line * 10_000
    for _ in range(size // len(block)):
        yield block

obstore.put(store(), "files/ada/large.csv", content(), max_concurrency=2)
start = time.perf_counter()
result = process_csv("ada", "large.csv", "measure", lambda _: None)
seconds = time.perf_counter() - start
# Not from getrusage, whose value a child inherits from its parent.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps({**result, "kib": int(peak[1]), "seconds": seconds}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports the peak memory")
@pytest.mark.processes
def test_memory_does_not_grow_with_the_file() -> None:
    """CSV_TEST_BYTES=1073741824 measures with a file of 1 GiB."""
    size = int(os.environ.get("CSV_TEST_BYTES", "67108864"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(size)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    print(measured)
    assert measured["processed"] > size // 110
    assert measured["kib"] < 256 * 1024


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an owner."""
    app = create_app()
    app.dependency_overrides[owner.current_owner] = lambda: "ada"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as session:
        yield session


@pytest.mark.anyio
async def test_invalid_requests_are_rejected(client: httpx.AsyncClient) -> None:
    long = f"{'x' * 118}.csv"
    for name in ("x.csv", long):
        await client.put(f"/files/{name}", content=b"a\n1\n")
    cases = (("x.csv", 202), ("y.csv", 404), ("../x.csv", 422), (long, 422), ("x" * 128, 422), ("日" * 90, 422))
    responses = await asyncio.gather(*(client.post("/process-csv", json={"file": name}) for name, _ in cases))
    assert [response.status_code for response in responses] == [status for _, status in cases]
