"""Versions of a task's parameters: messages that an older release queued are upgraded before the task gets them.

    def add_currency(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        return args, {"currency": "EUR", **kwargs}

    @celery_app.task(name="invoice.pay", version=2, upgrades={1: add_currency})

A message has the version of its publisher in the header `payload_version`; one without it has version 1. A message of a newer release
is requeued for a worker of that release, as an unknown task is (`unknown_tasks`).
"""

from collections.abc import Callable, Mapping
from typing import Any

HEADER = "payload_version"

Upgrade = Callable[[list[Any], dict[str, Any]], tuple[list[Any], dict[str, Any]]]
Upgrades = Mapping[int, Upgrade]


def check(task: Any) -> None:
    """Return if a task can upgrade each version from the oldest that it names.

    Raises:
        ValueError: it cannot.
    """
    version, upgrades = task.version, task.upgrades
    if version is None and not upgrades:
        return
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{task.name}: version={version!r} must be a number from 1 on.")
    oldest = min(upgrades, default=version)
    if set(upgrades) != set(range(oldest, version)) or oldest < 1:
        raise ValueError(
            f"{task.name}: upgrades={sorted(upgrades)} must have every version from the oldest one to {version - 1}."
        )


def is_newer(task: Any, headers: Mapping[str, Any]) -> bool:
    """Return whether a release with a newer version of the task queued a message."""
    return task.version is not None and _version(headers) > task.version


def upgrade(task: Any, tracer: Callable[..., Any]) -> Callable[..., Any]:
    """Return Celery's tracer of a task, which gets the arguments of the task's version."""

    def trace(task_id: str, args: Any, kwargs: Any, request: dict[str, Any]) -> Any:
        version = _version(request)
        if version < task.version:
            try:
                args, kwargs = upgraded(task, version, list(args), dict(kwargs))
                # For what is stored of a task that fails.
                request = {**request, HEADER: task.version}
            except Exception as error:  # noqa: BLE001 - the task fails with it
                request = {**request, "refusal": error}
        return tracer(task_id, args, kwargs, request)

    return trace


def upgraded(task: Any, version: int, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of an older version as those of the task's.

    Raises:
        ValueError: the task has no upgrade for the version.
        Exception: what an upgrade function raises.
    """
    for number in range(version, task.version):
        if number not in task.upgrades:
            raise ValueError(f"{task.name} has no upgrade for messages of version {number}")
        args, kwargs = task.upgrades[number](args, kwargs)
    return args, kwargs


def _version(headers: Mapping[str, Any]) -> int:
    found = headers.get(HEADER)
    return found if isinstance(found, int) else 1
