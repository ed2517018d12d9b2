"""A hard limit that is given alone ends a task, wherever it is given."""

from typing import Any

from app.core.celery import celery_app
from tests.e2e.conftest import Stack


def test_a_hard_limit_alone_is_enforced_wherever_it_is_given(stack: Stack, probe_task: Any) -> None:
    ids = [
        probe_task("hard_limit").delay().id,
        probe_task("stubborn").apply_async((1, 20), time_limit=1).id,
        probe_task("stubborn").s(1, 20).set(time_limit=1).apply_async().id,
        # As a producer does that knows no more than the name.
        celery_app.send_task("probe.stubborn", (1, 20), time_limit=1).id,
    ]
    for task_id in ids:
        state = stack.state(task_id, timeout=20)
        assert state["status"] == "FAILURE"
        assert state["error"]["type"] in {"TimeLimitExceeded", "SoftTimeLimitExceeded"}
