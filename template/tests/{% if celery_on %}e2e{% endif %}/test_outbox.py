"""The outbox, `once`, and a task whose message comes twice, with real workers and a Redis that goes down."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.database import session_scope
from app.tasks.process_task import process_task
from app.worker import outbox
from app.worker.publish import enqueue
from app.worker.status import read_status
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_api, start_worker, wait_until
from tests.e2e.redis_faults import running_server


@pytest.fixture(scope="module", params=["prefork", "threads"])
def worker(request: pytest.FixtureRequest, broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give a worker."""
    running = start_worker(tmp_path_factory.mktemp("worker") / "worker.log", pool=request.param, **FAST)
    yield running
    running.stop()


def _ended(task_id: str) -> Any:
    def status() -> Any:
        found = read_status(task_id)
        return found if found is not None and found.ready else None

    return wait_until(status, 20, f"{task_id} to end")


def test_a_second_message_of_a_task_that_has_succeeded_is_skipped(
    worker: Running, probe_task: Any, cache_client: Any
) -> None:
    cache_client.delete("probe:marks")
    task_id = str(uuid.uuid4())
    for _ in range(2):
        probe_task("mark").apply_async((1,), task_id=task_id)
        assert _ended(task_id).status == "SUCCESS"
    wait_until(lambda: [one for one in worker.lines("task_skipped") if one["task_id"] == task_id], 20, "the second")
    assert cache_client.hgetall("probe:marks") == {b"1": b"1"}


def test_a_task_that_runs_twice_has_its_effect_once(worker: Running, probe_task: Any, cache_client: Any) -> None:
    cache_client.delete("probe:marks")
    results = [probe_task("mark_once").delay(number) for number in (1, 2, 1, 1, 2)]
    outcomes = [_ended(result.id) for result in results]
    assert [outcome.status for outcome in outcomes] == ["SUCCESS"] * 5
    assert sum(outcome.result for outcome in outcomes) == 2
    wait_until(lambda: cache_client.hlen("probe:marks") == 2, 20, "both marks")
    assert set(cache_client.hvals("probe:marks")) == {b"1"}


def test_the_api_publishes_after_an_outage_what_was_committed_during_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> None:
        pass

    # This process knows another Redis.
    monkeypatch.setattr(outbox, "kick", nothing)

    async def commit() -> str:
        async with session_scope() as db:
            return (await enqueue(process_task.s({}), after_commit=db, outbox=True)).id

    with running_server(tmp_path) as (server, client):
        urls = {"CELERY_BROKER_URL": server.url(1), "CELERY_RESULT_BACKEND": server.url(2)}
        api, _ = start_api(tmp_path / "api.log", **FAST, **urls)

        def queued() -> list[str]:
            return [json.loads(text)["headers"]["id"] for text in reversed(client.lrange("high", 0, -1))]

        try:
            ids = [asyncio.run(commit())]
            wait_until(lambda: queued() == ids, 20, "the first task")
            server.kill()
            ids += [asyncio.run(commit()) for _ in range(3)]
            wait_until(lambda: api.lines("outbox_blocked"), 20, "the relay to see that Redis is down")
            server.start()
            wait_until(lambda: queued() == ids, 20, "the tasks of the outage, in order")
        finally:
            api.stop()
    assert "Traceback" not in api.text()
