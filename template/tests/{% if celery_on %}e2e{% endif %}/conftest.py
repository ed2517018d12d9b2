"""The processes, started once for all tests of a module that do not kill them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import httpx2 as httpx
import pytest
import redis

from tests.e2e.mail_sink import MailSink
from tests.e2e.processes import Running, start_api, start_worker, wait_until

# Short, so that a dead worker's tasks are back within seconds.
FAST = {
    "CELERY_VISIBILITY_TIMEOUT": "5",
    "CELERY_VISIBILITY_HEARTBEAT": "1",
    "CELERY_LIVENESS_INTERVAL": "1",
    "CELERY_MAX_REDELIVERIES": "2",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what uses the stack last in its module: its worker would take the tasks of tests that start a worker of their own."""
    order = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
    items.sort(key=lambda item: (order[item.path], "stack" in getattr(item, "fixturenames", ())))


@dataclass
class Stack:
    """A running application."""

    api: Running
    worker: Running
    http: httpx.Client
    mails: list[EmailMessage]
    environment: dict[str, str]

    def ready(self, check: str, result: str) -> None:
        """Return once GET /ready says so of one of its checks, within the 30 s that it promises."""

        def answered() -> bool:
            return bool(self.http.get("/ready").json()["checks"][check] == result)

        wait_until(answered, 30, f"{check} to be {result}")

    def state(self, task_id: str, timeout: float = 30) -> dict[str, Any]:
        """Return the task's answer once it has ended."""

        def ended() -> Any:
            answer = self.http.get(f"/task/{task_id}")
            assert answer.status_code == 200, answer.text
            return answer.json() if answer.json()["status"] in {"SUCCESS", "FAILURE", "REVOKED"} else None

        return dict(wait_until(ended, timeout, f"task {task_id} to end"))


@pytest.fixture(scope="module")
def broker() -> Iterator["redis.Redis"]:
    """Give a client of the broker's database, emptied first, and the results with it."""
    from app.core.config.celery import celery_settings

    results = redis.Redis.from_url(celery_settings.result_backend.get_secret_value())
    client = redis.Redis.from_url(celery_settings.broker_url.get_secret_value())
    client.flushdb()
    results.flushdb()
    yield client
    for connection in (client, results):
        connection.flushdb()
        connection.close()


@pytest.fixture(scope="module")
def stack(broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start the API and a worker."""
    folder = tmp_path_factory.mktemp("stack")
    sink = MailSink()
    environment = {**FAST, "EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": str(sink.port), "EMAIL_USE_TLS": "false"}
    worker = start_worker(folder / "worker.log", **environment)
    api, address = start_api(folder / "api.log", **environment)
    with httpx.Client(base_url=address, timeout=40) as http:
        running = Stack(api, worker, http, sink.mails, environment)
        yield running
    api.stop()
    running.worker.stop()
    sink.stop()
    assert not re.search(r"Traceback", api.text()), api.text()


@pytest.fixture
def probe_task() -> Any:
    """Give a function that returns a task of `probe_tasks` by its name."""
    import tests.e2e.probe_tasks  # noqa: F401
    from app.core.celery import celery_app

    return lambda name: celery_app.tasks[f"probe.{name}"]


@pytest.fixture
def cache_client() -> Any:
    """Give a client of the cache's database, where the probe tasks leave their traces."""
    from app.core.redis import cache

    return cache.sync.client
