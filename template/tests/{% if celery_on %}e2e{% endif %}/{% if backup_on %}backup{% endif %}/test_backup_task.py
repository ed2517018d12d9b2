"""The backup task on a real worker."""

from pathlib import Path

import obstore

from app.core.config.database import database_settings
from app.features.storage.service import store
from app.tasks.backup_task import backup_database
from tests.e2e.conftest import Stack
from tests.e2e.processes import start_worker


def test_a_backup_is_created(stack: Stack) -> None:
    state = stack.state(backup_database.delay().id)
    assert state["status"] == "SUCCESS", state
    name = state["result"]["filename"]
    assert obstore.head(store(), f"backups/{name}")["size"] == state["result"]["size"] > 0
    for path in (f"backups/{name}", f"backups/{name}.sha256"):
        obstore.delete(store(), path)


def test_a_failed_backup_reports_its_reason(stack: Stack, tmp_path: Path) -> None:
    url = database_settings.sqlalchemy_url
    missing = url.set(database=str(tmp_path / "nowhere") if url.get_backend_name() == "sqlite" else "nowhere")
    environment = {**stack.environment, "DATABASE_URL": missing.render_as_string(hide_password=False)}
    stack.worker.stop()
    worker = start_worker(tmp_path / "nowhere.log", **environment)
    try:
        state = stack.state(backup_database.delay().id)
    finally:
        worker.stop()
        stack.worker = start_worker(stack.worker.log, **stack.environment)
    assert state["status"] == "FAILURE"
    assert state["error"]["type"] == "BackupFailed"
    assert "nowhere" in state["error"]["message"]
    assert not obstore.list(store(), "backups").collect()
