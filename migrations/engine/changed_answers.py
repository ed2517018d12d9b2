"""What a changed answer asks of the project's owner: data that no update can move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Answers = Mapping[str, Any]


def steps(old: Answers, new: Answers) -> list[str]:
    """Return what is to be done by hand, a sentence each."""
    return [
        sentence
        for step in (_database, _slug, _accounts, _celery, _platform, _packs, _scheduler)
        for sentence in step(old, new)
    ]


def _changed(name: str, old: Answers, new: Answers) -> bool:
    return name in old and name in new and old[name] != new[name]


def _database(old: Answers, new: Answers) -> Iterator[str]:
    if _changed("database", old, new):
        yield (
            f"Your rows are in {old['database']}, and DATABASE_URL in secret/.env.* still names it. Name a database of "
            f"{new['database']} there, as secret/env.*.example do; `make migrate` makes its tables; the rows are yours to move."
        )


def _slug(old: Answers, new: Answers) -> Iterator[str]:
    if not _changed("project_slug", old, new):
        return
    yield (
        f"The default database and the default prefix of Redis keys are named {new['project_slug']} now. DATABASE_URL in "
        "secret/.env.* stays what it is; rename the database or leave it."
    )
    if old.get("use_docker") and new.get("use_docker"):
        yield (
            f"Compose's project is named {new['project_slug']} now, with new, empty volumes. To keep the data, set "
            f"`name: {old['project_slug']}` in docker-compose.yml again, or move the volumes while everything is stopped."
        )


def _accounts(old: Answers, new: Answers) -> Iterator[str]:
    if not _changed("auth", old, new):
        return
    if new["auth"] == "none":
        yield "The tables of the accounts stay, with their rows; the routes that need a login are open or gone: look at each."
    elif old["auth"] == "complete":
        yield "Accounts whose address was never verified can log in now: delete those that you do not want."


def _celery(old: Answers, new: Answers) -> Iterator[str]:
    if old.get("use_celery") and not new.get("use_celery"):
        yield (
            "Tasks that wait in Redis, or in the table outbox_messages, are not run any more: let the workers empty both before you "
            "deploy this."
        )


def _platform(old: Answers, new: Answers) -> Iterator[str]:
    if not (old.get("task_platform") and old.get("use_celery") and new.get("use_celery")) or new.get("task_platform"):
        return
    yield "Workers consume paused queues again. Replay or delete dead letters first, where you need them."
    if new.get("scheduler") != "none":
        yield "Entries of the schedule that are paused stay paused: resume them (POST /schedule/{entry}/resume) before you deploy this."


def _packs(old: Answers, new: Answers) -> Iterator[str]:
    gone = [pack for pack in old.get("task_examples", []) if pack not in new.get("task_examples", [])]
    if gone and new.get("use_celery"):
        yield (
            f"Tasks of {', '.join(gone)} that still wait end as unknown tasks: let the workers finish them before you deploy this. "
            "Files that they stored stay."
        )


def _scheduler(old: Answers, new: Answers) -> Iterator[str]:
    if _changed("scheduler", old, new) and old["scheduler"] != "none" and new["scheduler"] != "none":
        yield f"{new['scheduler']} does not know what {old['scheduler']} last ran: an entry may run once more, or once less."
