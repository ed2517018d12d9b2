"""Celery's eager mode is refused: what it tests is not what runs in production."""

from typing import Any


class EagerModeRefused(RuntimeError):
    """`task_always_eager` is set."""


def refuse(settings: Any) -> None:
    """Return if Celery's settings do not run tasks in the call that queues them.

    Raises:
        EagerModeRefused: they do.
    """
    if settings.task_always_eager:
        raise EagerModeRefused(
            "task_always_eager=True runs a task inside the call that queues it: it needs no Redis, so a test passes whose message "
            "cannot be queued, whose transaction is rolled back, or whose task takes its locks twice. Remove the setting; tests "
            "use the fixtures assert_queued, drain and running_worker (docs/testing-tasks.md), and task.apply() to run one task."
        )
