"""A final state never changes."""

import uuid
from typing import Any

import pytest
from celery import current_app, states

from app.core.celery import celery_app
from app.worker import revocation
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
