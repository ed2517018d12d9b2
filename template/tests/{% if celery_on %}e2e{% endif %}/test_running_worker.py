"""The fixture `running_worker`, as the tests of a project use it."""

import pytest

from app.tasks.process_task import process_task
from app.worker.publish import enqueue, wait_for
from tests.e2e.processes import Running

pytestmark = pytest.mark.anyio


async def test_a_worker_runs_what_is_queued(running_worker: Running) -> None:
    queued = await enqueue(process_task.s({"a": 1}))
    status = await wait_for(queued.id, 20)
    assert status is not None
    assert status.status == "SUCCESS"
    assert running_worker.lines("task_finished")[-1]["task_id"] == queued.id


@pytest.mark.usefixtures("running_worker")
def test_drain_is_refused_while_a_worker_runs(request: pytest.FixtureRequest) -> None:
    with pytest.raises(pytest.fail.Exception, match="running_worker takes what is queued"):
        request.getfixturevalue("drain")
