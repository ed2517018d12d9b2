"""Tasks that fail for good become dead letters, in each pool, and run again when they are replayed."""

from pathlib import Path
from typing import Any

import pytest

import app.core.celery  # noqa: F401 - the queues are those of this application
from app.worker import dead_letters, replay
from app.worker.status import read_status
from tests.e2e.conftest import FAST
from tests.e2e.processes import start_worker, wait_until


def _is_success(task_id: str) -> bool:
    status = read_status(task_id)
    return status is not None and status.status == "SUCCESS"


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_task_that_fails_for_good_becomes_a_dead_letter_and_is_replayed(
    pool: str, broker: Any, probe_task: Any, cache_client: Any, tmp_path: Path
) -> None:
    broker.flushdb()
    cache_client.delete("probe:mended")
    running = start_worker(tmp_path / "worker.log", pool=pool, **FAST)
    try:
        failed = probe_task("mended").delay(9).id
        (letter,) = wait_until(lambda: dead_letters.letters(broker), 20, "the dead letter")
        assert (letter.summary.task_id, letter.summary.error) == (failed, "ValueError")
        wait_until(lambda: not broker.hlen("unacked"), 10, "the message to be acknowledged")
        cache_client.set("probe:mended", 1)
        again = replay.replay(broker, letter.letter_id)
        assert again is not None
        wait_until(lambda: _is_success(again), 20, "the replay to succeed")
        assert dead_letters.letters(broker) == []
        status = read_status(failed)
        assert status is not None
        assert status.status == "FAILURE"
    finally:
        running.stop()


def test_a_task_that_is_redelivered_too_often_or_takes_too_long_becomes_a_dead_letter(
    broker: Any, probe_task: Any, cache_client: Any, tmp_path: Path
) -> None:
    broker.flushdb()
    running = start_worker(tmp_path / "worker.log", **FAST)
    try:
        died = probe_task("die").delay().id
        (letter,) = wait_until(lambda: dead_letters.letters(broker), 60, "the dead letter")
        assert (letter.summary.task_id, letter.summary.error) == (died, "RedeliveryLimitExceeded")
        dead_letters.delete(broker, letter.letter_id)
        late = probe_task("mended_late").delay().id
        (letter,) = wait_until(lambda: dead_letters.letters(broker), 20, "the dead letter")
        assert (letter.summary.task_id, letter.summary.error) == (late, "TimeLimitExceeded")
        # A failure without `dead_letter` is none.
        failed = probe_task("fail").delay().id
        wait_until(lambda: (found := read_status(failed)) and found.ready, 20, "the task to fail")
        assert len(dead_letters.letters(broker)) == 1
    finally:
        running.stop()
