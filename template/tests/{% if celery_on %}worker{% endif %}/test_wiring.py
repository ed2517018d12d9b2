"""Everything that must fit together for a task to run: schedule, names, queues, worker commands, limits."""

import re
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import QueueNotFound

from app.core.celery import celery_app
from app.core.discovery import task_modules
from tests import ROOT

# A renamed task strands what is queued under its old name. Add the names of your own tasks to OWN.
PINNED = {"process_task"}
OWN: set[str] = set()


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    celery_app.loader.import_default_modules()
    celery_app.finalize()


def own_tasks() -> dict[str, Any]:
    return {name: task for name, task in celery_app.tasks.items() if not name.startswith("celery.")}


def declared_queues() -> set[str]:
    return set(celery_app.amqp.queues)


def consumed_queues(text: str) -> set[str]:
    """Return the queues of the worker commands in `text`; one without -Q consumes every declared queue."""
    consumed: set[str] = set()
    for line in text.splitlines():
        if re.search(r"(celery_app|app\.worker( -q)?) worker", line):
            found = re.search(r"(?:-Q|--queues)[ =]([\w,]+)", line)
            consumed |= set(found[1].split(",")) if found else declared_queues()
    return consumed


def test_every_scheduled_task_is_registered() -> None:
    unknown = {
        f"{entry}: {options['task']}"
        for entry, options in celery_app.conf.beat_schedule.items()
        if options["task"] not in celery_app.tasks
    }
    assert not unknown, f"beat_schedule names tasks that no module in app/tasks/ registers: {sorted(unknown)}"


def test_every_task_goes_to_a_declared_queue() -> None:
    for name, task in own_tasks().items():
        # Raises for a queue that nobody declares.
        assert celery_app.amqp.router.route({}, name, task_type=task)["queue"].name in declared_queues()


COMPOSE = sorted(path.name for path in ROOT.glob("docker-compose*.yml") if path.name != "docker-compose.override.yml")


@pytest.mark.parametrize("file", ["Procfile", "Makefile", *COMPOSE])
def test_every_queue_is_consumed_by_a_worker_command(file: str) -> None:
    consumed = consumed_queues((ROOT / file).read_text())
    assert consumed, f"{file} starts no worker"
    assert declared_queues() <= consumed, f"{file}: no worker consumes {sorted(declared_queues() - consumed)}"
    assert consumed <= declared_queues(), f"{file}: undeclared queues {sorted(consumed - declared_queues())}"


def test_every_scheduled_entry_goes_to_a_declared_queue() -> None:
    for entry, options in celery_app.conf.beat_schedule.items():
        queue = options.get("options", {}).get("queue", "default")
        assert queue in declared_queues(), f"{entry} goes to {queue}, which nobody declares"


def test_task_names_are_pinned() -> None:
    missing = (PINNED | OWN) - set(own_tasks())
    assert not missing, f"these names are gone, and what is queued under them with it: {sorted(missing)}"


def test_every_task_has_time_limits() -> None:
    for name, task in own_tasks().items():
        hard = task.time_limit or celery_app.conf.task_time_limit
        soft = task.soft_time_limit or celery_app.conf.task_soft_time_limit
        assert hard, f"{name} may run for ever"
        assert soft < hard, f"{name}: the soft limit of {soft} s is not below the hard one of {hard} s"


def test_every_module_in_tasks_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for path in ("one.py", "deep/two.py", "deep/er/three.py", "__init__.py", "deep/not-a-module.py"):
        (tmp_path / path).touch()
    assert task_modules(tmp_path, "x") == ["x.deep.er.three", "x.deep.two", "x.one"]
    assert set(task_modules()) <= set(celery_app.conf.include)


def test_only_json_is_accepted() -> None:
    assert celery_app.conf.accept_content == ["json"]
    assert celery_app.conf.task_serializer == "json"
    assert celery_app.backend.content_type == "application/json"


def test_a_misspelled_queue_is_refused() -> None:
    with pytest.raises(QueueNotFound, match="hihg"):
        celery_app.tasks["process_task"].apply_async(({},), queue="hihg")


@pytest.mark.parametrize(
    ("former", "option"), [("hides_arguments", "redact_arguments"), ("tells_last_success", "record_last_success")]
)
def test_an_option_under_its_former_name_is_refused(former: str, option: str) -> None:
    options: dict[str, Any] = {"name": "test.former", "lazy": False, former: True}

    def function() -> None: ...

    with pytest.raises(TypeError, match=f"test.former: write {option} instead of {former}"):
        celery_app.task(**options)(function)
