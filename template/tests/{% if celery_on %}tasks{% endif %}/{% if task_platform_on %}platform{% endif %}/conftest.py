"""What the tests of the operators' routes share."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI


@pytest.fixture
def broker(app: FastAPI) -> Iterator[Any]:
    """Give a client of the broker's database without data, and let every request come from an operator."""
    # Not before the root's conftest.py has set the addresses of the servers.
    from app.api.task_access import TaskViewer, operator_or_owner
    from app.worker import flow_control

    client: Any = flow_control.client()
    client.flushdb()
    app.dependency_overrides[operator_or_owner] = lambda: TaskViewer(None)
    yield client
    app.dependency_overrides.clear()
    client.flushdb()
