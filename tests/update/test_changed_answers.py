"""What the report says about a changed answer, for each answer and each change that matters."""

from __future__ import annotations

from typing import Any

import pytest

from engine.changed_answers import steps

PLATFORM = {"use_celery": True, "task_platform": True, "scheduler": "beat"}
DOCKER = {"use_docker": True}
PACKS = {"use_celery": True, "task_examples": ["reports", "images"]}
RENAMED = "named new now. DATABASE_URL"
CASES: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({}, {"database": "postgresql"}, []),
    ({"database": "sqlite"}, {}, []),
    ({"database": "sqlite"}, {"database": "sqlite"}, []),
    ({"database": "sqlite"}, {"database": "mysql"}, ["Your rows are in sqlite"]),
    ({"project_slug": "old"}, {"project_slug": "old"}, []),
    ({"project_slug": "old"}, {"project_slug": "new"}, [RENAMED]),
    ({"project_slug": "old", **DOCKER}, {"project_slug": "new"}, [RENAMED]),
    ({"project_slug": "old"}, {"project_slug": "new", **DOCKER}, [RENAMED]),
    ({"project_slug": "old", **DOCKER}, {"project_slug": "new", **DOCKER}, [RENAMED, "`name: old`"]),
    ({"auth": "complete"}, {"auth": "complete"}, []),
    ({"auth": "complete"}, {"auth": "none"}, ["The tables of the accounts stay"]),
    ({"auth": "basic"}, {"auth": "none"}, ["The tables of the accounts stay"]),
    ({"auth": "complete"}, {"auth": "basic"}, ["never verified can log in now"]),
    ({"auth": "basic"}, {"auth": "complete"}, []),
    ({"use_celery": True}, {"use_celery": False}, ["Tasks that wait in Redis"]),
    ({"use_celery": True}, {"use_celery": True}, []),
    ({"use_celery": False}, {"use_celery": False}, []),
    ({"use_celery": False}, {"use_celery": True}, []),
    (PLATFORM, PLATFORM, []),
    (PLATFORM, PLATFORM | {"task_platform": False}, ["paused queues again", "that are paused stay paused"]),
    (PLATFORM, PLATFORM | {"task_platform": False, "scheduler": "none"}, ["paused queues again"]),
    (PLATFORM, PLATFORM | {"task_platform": False, "use_celery": False}, ["Tasks that wait in Redis"]),
    (PLATFORM | {"use_celery": False}, PLATFORM | {"task_platform": False}, []),
    (PLATFORM | {"task_platform": False}, PLATFORM | {"task_platform": False}, []),
    (PACKS, PACKS, []),
    (PACKS, PACKS | {"task_examples": ["images"]}, ["Tasks of reports that still wait"]),
    (PACKS, {"use_celery": True}, ["Tasks of reports, images that still wait"]),
    ({"use_celery": True}, PACKS, []),
    (PACKS | {"use_celery": False}, {"use_celery": False}, []),
    ({"scheduler": "beat"}, {"scheduler": "redbeat"}, ["redbeat does not know what beat last ran"]),
    ({"scheduler": "beat"}, {"scheduler": "none"}, []),
    ({"scheduler": "none"}, {"scheduler": "beat"}, []),
]


@pytest.mark.parametrize(("old", "new", "words"), CASES)
def test_a_changed_answer_says_what_it_leaves_to_the_owner(
    old: dict[str, Any], new: dict[str, Any], words: list[str]
) -> None:
    said = steps(old, new)
    assert len(said) == len(words), said
    assert all(part in sentence for part, sentence in zip(words, said, strict=True)), said
