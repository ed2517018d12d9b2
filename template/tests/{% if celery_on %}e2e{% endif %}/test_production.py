"""Production starts with safe settings only."""

from pathlib import Path

import pytest

from devtools.servers import free_port
from tests.e2e.processes import Running

COMMANDS = {
    "worker": ("app.worker", "worker"),
    "beat": ("app.worker", "beat"),
    "api": ("uvicorn", "app.main:app", "--port", str(free_port())),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_process_starts_without_a_broker_password(command: str, tmp_path: Path) -> None:
    nowhere = f"redis://redis.invalid:{free_port()}/1"
    # beat throws away a schedule file that it cannot read: it must be one of the test's own.
    options = ["--schedule", str(tmp_path / "schedule")] if command == "beat" else []
    process = Running(
        tmp_path / "log", *COMMANDS[command], *options, ENVIRONMENT="production", CELERY_BROKER_URL=nowhere
    )
    try:
        assert process.process.wait(30) != 0
    finally:
        process.stop()
    assert "CELERY_BROKER_URL has no password for redis.invalid" in process.text()
