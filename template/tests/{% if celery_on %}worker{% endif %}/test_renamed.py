"""Names of the release before work for one more release, with a warning."""

import importlib
from typing import Any

import pytest

from app.core.celery import celery_app


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("records", ["TaskStatus", "read_status", "ResultBackend", "count_redelivery", "excuse_redelivery"]),
        ("heartbeat", ["Beating", "HeldTasks", "renew"]),
        ("owners", ["TooManyJobs", "admit", "jobs_key"]),
        ("task", ["RedeliveryLimitExceeded"]),
        ("liveness", ["EVERY", "Heartbeat", "Progress", "living_workers", "touch"]),
        ("beat", ["HonestScheduler"]),
    ],
)
def test_moved_names_are_found_with_a_warning(module: str, names: list[str]) -> None:
    for name in names:
        with pytest.warns(DeprecationWarning, match=rf"app\.worker\.{module}\.{name} is now app\.worker\."):
            assert getattr(importlib.import_module(f"app.worker.{module}"), name)


@pytest.mark.parametrize(
    ("old", "new"), [("hides_arguments", "redact_arguments"), ("tells_last_success", "record_last_success")]
)
def test_renamed_task_options_are_read_with_a_warning(old: str, new: str) -> None:
    options: Any = {old: True}

    def option() -> None:
        """Do nothing."""

    with pytest.warns(DeprecationWarning, match=f"option: the task option {old} is now {new}"):
        task = celery_app.task(name="probe.option", lazy=False, **options)(option)
    celery_app.tasks.pop("probe.option")
    assert getattr(task, new) is True
