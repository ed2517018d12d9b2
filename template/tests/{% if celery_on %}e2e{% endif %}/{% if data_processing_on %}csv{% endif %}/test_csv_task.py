"""Processing a CSV file on a real worker, which is killed meanwhile."""

import os
import signal
from collections.abc import Iterator

import obstore
import pytest

from app.features.storage.service import store
from app.tasks.data_processing_task import process_csv_file
from tests.e2e.conftest import Stack
from tests.e2e.processes import wait_until

ROWS = 400_000


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Delete the files after the test."""
    yield
    for chunk in obstore.list(store()):
        obstore.delete(store(), [meta["path"] for meta in chunk])


@pytest.fixture
def large() -> bytes:
    """Store a file of about 40 MB and return its content."""
    content = b"number,text\r\n" + b"".join(b"%d,%s\r\n" % (number, b"x" * 90) for number in range(ROWS))
    obstore.put(store(), "files/ada/large.csv", content, max_concurrency=2)
    return content


def test_rows_are_not_duplicated_after_a_worker_was_killed(stack: Stack, large: bytes) -> None:
    task_id = process_csv_file.delay("large.csv", "ada").id

    def is_running() -> bool:
        state = stack.http.get(f"/task/{task_id}").json()
        return bool(state["status"] == "PROGRESS" and 0 < state["result"]["percent"] < 100)

    wait_until(is_running, 60, "the task to report progress")
    for child in stack.worker.children():
        os.kill(child, signal.SIGKILL)
    state = stack.state(task_id, 120)
    assert state["status"] == "SUCCESS", state
    assert state["result"]["processed"] == state["result"]["total_rows"] == ROWS
    assert bytes(obstore.get(store(), "files/ada/large_processed.csv").bytes()) == large
    kept = {meta["path"] for chunk in obstore.list(store(), "work/csv") for meta in chunk}
    assert kept == {f"work/csv/{task_id}/result.json"}


def test_a_file_without_columns_reports_its_reason(stack: Stack) -> None:
    obstore.put(store(), "files/ada/empty.csv", b"")
    state = stack.state(process_csv_file.delay("empty.csv", "ada").id)
    assert (state["status"], state["error"]) == ("FAILURE", {"type": "InvalidCsv", "message": "the file is empty"})
