"""A final state never changes."""

import contextlib
import uuid
from typing import Any

import pytest
from celery import current_app, states
from celery.app.task import Context
from celery.exceptions import Ignore

from app.core.celery import celery_app
from app.worker import revocation, start
from app.worker.status import read_status

VALUES: dict[str, Any] = {
    states.SUCCESS: 1,
    states.FAILURE: ValueError("x"),
    states.REVOKED: RuntimeError("revoked"),
    states.RETRY: ValueError("x"),
    states.STARTED: {"pid": 1},
    "PROGRESS": {"done": 1},
}


@pytest.mark.parametrize("final", sorted(states.READY_STATES & VALUES.keys()))
@pytest.mark.parametrize("later", sorted(VALUES))
def test_nothing_overwrites_a_final_state(final: str, later: str) -> None:
    backend: Any = celery_app.backend
    task_id = str(uuid.uuid4())
    backend.store_result(task_id, VALUES[states.STARTED], states.STARTED)
    backend.store_result(task_id, VALUES[final], final)
    backend.store_result(task_id, VALUES[later], later)
    status = read_status(task_id)
    assert status is not None
    assert status.status == final
    assert 0 < backend.client.ttl(backend.get_key_for_task(task_id)) <= current_app.conf.result_expires


def test_a_revocation_is_stored_for_longer_than_results() -> None:
    task_id = str(uuid.uuid4())
    celery_app.control.revoke(task_id)
    backend: Any = celery_app.backend
    assert 29 * 86400 < backend.client.ttl(f"revoked:{task_id}") <= revocation.EXPIRES


@pytest.mark.parametrize(("chord", "runs"), [(None, False), ({"task": "x"}, True)], ids=["task", "part of a chord"])
def test_a_task_that_has_succeeded_is_skipped_unless_a_chord_counts_it(chord: Any, runs: bool) -> None:
    task: Any = celery_app.tasks["process_task"]
    task.push_request(id="twice", chord=chord, start=start.Start(is_revoked=False, redeliveries=0, has_succeeded=True))
    try:
        with contextlib.nullcontext() if runs else pytest.raises(Ignore):
            start.check(task, "twice")
    finally:
        task.pop_request()


@pytest.mark.parametrize(
    ("state", "skipped"), [(states.SUCCESS, True), (states.FAILURE, False), (states.RETRY, False), (None, False)]
)
def test_the_call_that_stores_started_says_whether_the_task_has_succeeded(state: str | None, skipped: bool) -> None:
    backend: Any = celery_app.backend
    task_id = str(uuid.uuid4())
    if state:
        backend.store_result(task_id, VALUES[state], state)
    request: Any = Context(id=task_id)
    backend.store_result(task_id, {}, states.STARTED, request=request)
    assert request.start == start.Start(is_revoked=False, redeliveries=0, has_succeeded=skipped)
