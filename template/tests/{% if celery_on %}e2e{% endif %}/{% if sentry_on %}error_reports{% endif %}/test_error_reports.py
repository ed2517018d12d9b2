"""What a failed task reports to Sentry."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import FAST
from tests.e2e.processes import start_worker, wait_until
from tests.sink import Sink, sink

PERSON = "ada@example.com"


@pytest.fixture
def sentry() -> Iterator[Sink]:
    """Run a server that receives reports."""
    with sink() as running:
        yield running


def events(sentry: Sink) -> list[dict[str, Any]]:
    """Return the reported errors."""
    found = []
    for _, body in list(sentry.requests):
        lines = body.splitlines()
        for head, item in zip(lines[1::2], lines[2::2], strict=False):
            if json.loads(head).get("type") == "event":
                found.append(json.loads(item))
    return found


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_failed_task_is_reported_once_without_its_arguments(
    broker: Any, sentry: Sink, tmp_path: Path, probe_task: Any, pool: str
) -> None:
    worker = start_worker(tmp_path / "log", pool=pool, SENTRY_DSN=f"http://key@{sentry.host}/7", **FAST)
    try:
        probe_task("async_retry").delay()
        probe_task("fail").apply_async(headers={"about": PERSON})
        probe_task("mark").delay(PERSON)
        probe_task("mark").delay(PERSON, "no number")
        wait_until(lambda: len(events(sentry)) >= 2, 30, "the reports")
    finally:
        worker.stop()
    reported = events(sentry)
    assert sorted(event["transaction"] for event in reported) == ["probe.fail", "probe.mark"]
    assert {event["environment"] for event in reported} == {"test"}
    failed = next(event for event in reported if event["transaction"] == "probe.fail")
    assert failed["exception"]["values"][-1]["value"] == "as it should"
    assert not [body for _, body in sentry.requests if PERSON.encode() in body]


def test_nothing_is_reported_without_a_dsn(broker: Any, sentry: Sink, tmp_path: Path, probe_task: Any) -> None:
    worker = start_worker(tmp_path / "log", SENTRY_DSN="", **FAST)
    try:
        probe_task("fail").delay()
        wait_until(lambda: worker.lines("task_finished"), 30, "the task to end")
    finally:
        worker.stop()
    assert sentry.requests == []
    assert "sentry" not in worker.text().lower()
