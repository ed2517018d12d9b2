"""Summarize a JSON document."""

from collections import Counter
from typing import Any

from app.core.celery import celery_app


@celery_app.task(name="process_task", queue_name="high", time_limit=60, soft_time_limit=50, submit=True)
def process_task(data: dict[str, Any]) -> dict[str, Any]:
    """Return how many values of each JSON type `data` has, and how deep it is nested."""
    return summarise(data)


def summarise(data: dict[str, Any]) -> dict[str, Any]:
    """Return `{"values", "by_type", "depth"}` of a JSON object. Not recursive, because clients choose the depth."""
    by_type: Counter[str] = Counter()
    depth = 0
    rest: list[tuple[Any, int]] = [(value, 1) for value in data.values()]
    while rest:
        value, level = rest.pop()
        depth = max(depth, level)
        by_type[type(value).__name__] += 1
        if isinstance(value, dict):
            rest.extend((item, level + 1) for item in value.values())
        elif isinstance(value, list):
            rest.extend((item, level + 1) for item in value)
    return {"values": by_type.total(), "by_type": dict(sorted(by_type.items())), "depth": depth}
