"""A chain, a group and a chord on a real worker, each with and without a member that fails."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.core.redis import cache
from app.tasks import workflows
from app.tasks.workflows import process_files, process_files_and_summarise, process_validate_and_notify
from app.worker.publish import enqueue
from tests.e2e.conftest import Stack
from tests.e2e.processes import wait_until

GOOD, LONGER, BROKEN = '{"a": 1}', '{"a": 1, "b": [true, null]}', '{"a": '
REASON = "the file is not valid JSON: Expecting value: line 1 column 7 (char 6)"

pytestmark = pytest.mark.anyio


class _Told:
    """What the workflows told their listeners."""

    def __init__(self, listener: Any) -> None:
        self._listener = listener
        self.events: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        while message := self._listener.get_message(ignore_subscribe_messages=True):
            self.events.append(json.loads(message["data"]))
        return self.events

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        return wait_until(lambda: self.read() if len(self.read()) >= count else [], 20, f"{count} events")


@pytest.fixture
def told() -> Iterator[_Told]:
    """Listen to the workflows."""
    client: Any = cache.sync.client
    with client.pubsub() as listener:
        listener.subscribe(cache.sync.key(workflows.CHANNEL))
        assert wait_until(listener.get_message, 10, "the subscription")["type"] == "subscribe"
        yield _Told(listener)


def _steps(result: Any) -> list[str]:
    """Return the ids of a chain's tasks, the first one first."""
    ids: list[str] = []
    while result is not None:
        ids.insert(0, result.id)
        result = result.parent
    return ids


def _ran(stack: Stack, task_id: str) -> bool:
    return any(line["task_id"] == task_id for line in stack.worker.lines("task_finished"))


async def test_a_chain_hands_each_result_on(stack: Stack, told: _Told) -> None:
    result = await enqueue(process_validate_and_notify({"a": 1, "b": [True, None]}))
    states = [stack.state(task_id) for task_id in _steps(result)]
    assert [state["status"] for state in states] == ["SUCCESS"] * 3
    assert states[2]["result"] == {"listeners": 1}
    assert [event["processed"]["values"] for event in told.wait_for(1)] == [4]


async def test_a_chain_stops_at_the_step_that_fails(stack: Stack, told: _Told) -> None:
    first, second, third = _steps(await enqueue(process_validate_and_notify({})))
    error = {"type": "ValueError", "message": "the data has no values"}
    assert stack.state(first)["status"] == "SUCCESS"
    assert stack.state(second)["error"] == error
    # Celery hands the failure on to the steps that will never run.
    state = stack.state(third)
    assert (state["status"], state["error"]) == ("FAILURE", error)
    assert told.wait_for(1) == [{"failed": second, "error": error}]
    assert not _ran(stack, third)


async def test_a_group_runs_each_file(stack: Stack) -> None:
    result: Any = await enqueue(process_files([GOOD, LONGER, GOOD]))
    states = [stack.state(member.id) for member in result.results]
    assert [state["result"]["values"] for state in states] == [1, 4, 1]


async def test_a_group_finishes_beside_the_member_that_fails(stack: Stack, told: _Told) -> None:
    result: Any = await enqueue(process_files([GOOD, BROKEN, LONGER, "[]"]))
    states = [stack.state(member.id) for member in result.results]
    assert [state["status"] for state in states] == ["SUCCESS", "FAILURE", "SUCCESS", "FAILURE"]
    assert states[1]["error"] == {"type": "ValueError", "message": REASON}
    assert states[3]["error"] == {"type": "ValueError", "message": "the file must be a JSON object, not a list"}
    failed = {event["failed"] for event in told.wait_for(2)}
    assert failed == {result.results[1].id, result.results[3].id}


async def test_a_chord_calls_back_with_all_results(stack: Stack, told: _Told) -> None:
    result = await enqueue(process_files_and_summarise([GOOD, LONGER]))
    assert stack.state(result.id)["result"] == {"files": 2, "values": 5}
    assert told.wait_for(1) == [{"summary": {"files": 2, "values": 5}}]


async def test_a_chord_with_a_member_that_fails_does_not_call_back(stack: Stack, told: _Told) -> None:
    result = await enqueue(process_files_and_summarise([GOOD, BROKEN, LONGER]))
    header: Any = result.parent
    members = [stack.state(member.id) for member in header.results]
    assert [member["status"] for member in members] == ["SUCCESS", "FAILURE", "SUCCESS"]
    state = stack.state(result.id)
    assert state["status"] == "FAILURE"
    assert state["error"]["type"] == "ChordError"
    assert header.results[1].id in state["error"]["message"]
    assert REASON in state["error"]["message"]
    [event] = told.wait_for(1)
    assert event == {"failed": result.id, "error": state["error"]}
    assert not _ran(stack, result.id)


@pytest.mark.parametrize("build", [process_files, process_files_and_summarise])
def test_files_are_bounded(build: Any) -> None:
    for files in ([], [GOOD] * (workflows.MAX_FILES + 1)):
        with pytest.raises(ValueError, match="must be 1 to 100"):
            build(files)
    with pytest.raises(ValueError, match="65537 characters; the maximum is 65536"):
        workflows.process_file_task(" " * 65537)


def test_names_are_pinned() -> None:
    steps = ("process_data_task", "validate_results_task", "send_notification_task", "process_file_task")
    for name in (*steps, "send_summary_task", "report_failure_task"):
        assert getattr(workflows, name).name == name
